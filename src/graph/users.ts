import type { Graph, Node } from './graph.js';

/** Of a value's id: the only node that uses it, when nothing else needs the value itself. */
export function soleUsers(graph: Graph): (id: number) => Node | undefined {
  const uses = new Map<number, Node[]>();
  for (const node of graph.nodes) for (const id of node.inputs) uses.set(id, [...(uses.get(id) ?? []), node]);
  const outputs = new Set(graph.outputs.values());
  return (id) => (outputs.has(id) || uses.get(id)?.length !== 1 ? undefined : uses.get(id)![0]);
}
