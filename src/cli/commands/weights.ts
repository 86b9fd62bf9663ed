import path from 'node:path';
import type { Command } from 'commander';
import { WfrError } from '../../gpu/errors.js';
import { writeAtomically } from '../../media/files.node.js';
import { graphsOf } from '../../nets/build.js';
import { describe } from '../../nets/describe.js';
import { loadWeights } from '../../weights/load.node.js';
import { exportOnnx } from '../../weights/onnx/export.js';
import { isPulled, pull } from '../../weights/pull.node.js';
import { REGISTRY } from '../../weights/registry.js';
import { openWeights, saveWeights } from '../../weights/save.node.js';
import { parameterCount } from '../../weights/state_dict.js';
import { interruptible } from '../interrupt.js';
import { examples, type JsonFlags, jsonOption, type WeightsFlags, weightsOption } from '../options.js';
import { bytesProgress } from '../progress.js';
import { table } from '../table.js';

export function define(command: Command): void {
  const sub = (name: string, summary: string) =>
    jsonOption(
      command.command(name).description(summary).exitOverride().helpOption('-h, --help', 'show this help'),
    );
  weightsOption(sub('list', 'weights that can be pulled, and those in use'))
    .option('--used', 'only those in use')
    .action(list);
  sub('pull', 'download weights, check them and keep them in the cache')
    .argument('<name>', 'a name from wfr weights list')
    .option('--from <path>', 'take the files from a folder instead of the network')
    .option('--mirror <url>', 'another address to take the files from')
    .action(pullCommand);
  sub('inspect', 'what a weights file holds: net, parameters, multiply-adds, metadata')
    .argument('<files...>', 'a file, or the three of an MTCNN')
    .action(inspect);
  sub('convert', 'convert public weights to safetensors, or a whole net to ONNX')
    .argument('<files...>', 'a file, or the three of an MTCNN')
    .requiredOption('-o, --out <file>', 'a .safetensors or .onnx file (an MTCNN gives three .onnx)')
    .option('--f16', 'store halves: half the size, rounded')
    .action(convert);
  examples(command, [
    ['wfr weights list', 'what there is and what is used'],
    ['wfr weights pull mtcnn', 'fetch a detector'],
    ['wfr weights inspect 068.ckpt', 'any format that wfr reads'],
    ['wfr weights convert pnet.pt rnet.pt onet.pt --out mtcnn.safetensors', 'three files to one'],
    ['wfr weights convert mobilefacenet.safetensors --out net.onnx', 'to run it elsewhere'],
  ]);
}

async function list(flags: JsonFlags & WeightsFlags & { used?: boolean }): Promise<void> {
  const used = [];
  for (const role of ['detector', 'recogniser'] as const) {
    const found = await loadWeights(role, { path: flags.weights }).catch((error: Error) => error);
    if (found instanceof Error) used.push({ role, problem: found.message });
    else
      used.push({
        role,
        title: found.metadata.title ?? found.metadata.net,
        file: found.files[0],
        place: found.place,
        licence: found.metadata.licence,
      });
  }
  const known = REGISTRY.map((entry) => {
    const { name, net, licence, note } = entry;
    return { name, net, licence, note, cached: isPulled(entry) };
  });
  if (flags.used && used.some((u) => 'problem' in u)) process.exitCode = 1;
  if (flags.json) return console.log(JSON.stringify({ used, known }, null, 2));
  for (const u of used)
    console.log(
      'problem' in u
        ? `${u.role}: ${u.problem}`
        : `${u.role}: ${u.title}, from ${u.file} (${u.place})${u.licence ? `; licence: ${u.licence}` : ''}`,
    );
  if (flags.used) return;
  console.log(
    `\n${table(
      ['name', 'net', 'licence', 'in the cache', ''],
      known.map((k) => [k.name, k.net, k.licence, k.cached ? 'yes' : 'no', k.note]),
    )}`,
  );
}

async function pullCommand(
  name: string,
  flags: JsonFlags & { from?: string; mirror?: string },
): Promise<void> {
  await interruptible(async (signal) => {
    const bar = bytesProgress();
    try {
      const { folder, entry } = await pull(name, {
        from: flags.from,
        mirror: flags.mirror,
        signal,
        onProgress: bar.update,
      });
      bar.stop();
      if (flags.json) console.log(JSON.stringify({ name, folder, licence: entry.licence }));
      else console.log(`${name} is in ${folder}\nLicence: ${entry.licence}. ${entry.note}`);
    } finally {
      bar.stop();
    }
  });
}

async function inspect(files: string[], flags: JsonFlags): Promise<void> {
  const { state, metadata } = await openWeights(files);
  const nets = graphsOf(metadata.net, metadata).map((g) => ({ name: g.name, ...describe(g) }));
  const tensors = [...state].map(([name, { shape }]) => ({ name, shape }));
  if (flags.json)
    return console.log(JSON.stringify({ metadata, nets, values: parameterCount(state), tensors }, null, 2));
  for (const [key, value] of Object.entries(metadata))
    console.log(`${key}: ${typeof value === 'string' ? value : JSON.stringify(value)}`);
  console.log(`values stored: ${parameterCount(state).toLocaleString('en')} in ${state.size} tensors`);
  const rows = nets.map((n) => [n.name, n.parameters.toLocaleString('en'), (n.macs / 1e6).toFixed(2)]);
  console.log(`\n${table(['net', 'parameters>', 'million multiply-adds>'], rows)}`);
}

async function convert(files: string[], flags: JsonFlags & { out: string; f16?: boolean }): Promise<void> {
  const weights = await openWeights(files);
  const ending = path.extname(flags.out).toLowerCase();
  const written: string[] = [];
  if (ending === '.safetensors') {
    await saveWeights(flags.out, weights, flags.f16 ? 'f16' : 'f32');
    written.push(flags.out);
  } else if (ending === '.onnx') {
    if (flags.f16) throw new WfrError('--f16 is for safetensors: ONNX files are written in f32.');
    const graphs = graphsOf(weights.metadata.net, weights.metadata);
    for (const graph of graphs) {
      const file = graphs.length === 1 ? flags.out : flags.out.replace(/\.onnx$/i, `.${graph.name}.onnx`);
      await writeAtomically(file, exportOnnx(graph, weights.state, weights.metadata));
      written.push(file);
    }
  } else throw new WfrError(`--out ${flags.out}: name a .safetensors or .onnx file.`);
  if (flags.json) console.log(JSON.stringify({ net: weights.metadata.net, written }));
  else console.log(`${weights.metadata.title ?? weights.metadata.net} written to ${written.join(', ')}`);
}
