/** What every page begins with: device, weights, status line, and a word where there is no WebGPU. */

import type { EngineEvent, LoadedNet, Role, WeightsFile } from './engine.js';
import { type Dropped, isWeights } from './files.js';
import { type RemoteEngine, startEngine } from './remote.js';

interface ServedNet {
  role: Role;
  title: string;
  files: WeightsFile[];
}

export const element = <T extends HTMLElement>(id: string): T => {
  const found = document.getElementById(id);
  if (!found) throw new Error(`The page has no #${id}.`);
  return found as T;
};

/** The line that tells what is going on; read out by screen readers. */
export function say(text: string, kind: 'busy' | 'ready' | 'error' = 'ready'): void {
  const status = element('status');
  status.textContent = text;
  status.dataset.kind = kind;
}

export const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

export interface Session {
  engine: RemoteEngine;
  nets: Partial<Record<Role, LoadedNet>>;
  /** Takes weights files out of what was dropped and loads them. @returns the rest. */
  takeWeights(files: readonly Dropped[]): Promise<Dropped[]>;
}

/**
 * @param needs without these the page can do nothing yet, and says what to drop.
 * @returns undefined where there is no WebGPU; the page says so.
 */
export async function setUp(
  needs: readonly Role[],
  onEvent: (event: EngineEvent) => void = () => undefined,
): Promise<Session | undefined> {
  const engine = startEngine((event) => {
    if (event.kind === 'download') {
      const of = event.total ? ` of ${megabytes(event.total)}` : '';
      say(`Loading the ${event.role}: ${megabytes(event.done)}${of}`, 'busy');
    }
    onEvent(event);
  });
  /** Milliseconds: from the address to the page's code, then what the device and each served net took. */
  const cold: Record<string, number> = { page: performance.now() };
  let last = cold.page;
  const lap = (stage: string) => {
    const now = performance.now();
    cold[stage] = now - last;
    last = now;
    document.body.dataset.cold = JSON.stringify(cold);
  };
  try {
    say('Opening the graphics device…', 'busy');
    const { adapter, software } = await engine.open();
    lap('device');
    element('adapter').textContent = software ? `${adapter} (software, slow)` : adapter;
  } catch (error) {
    const dialog = element('no-webgpu');
    dialog.hidden = false;
    element('no-webgpu-reason').textContent = (error as Error).message;
    say('This browser cannot run the page.', 'error');
    return undefined;
  }
  const nets: Partial<Record<Role, LoadedNet>> = {};
  const note = () => {
    const missing = needs.filter((role) => !nets[role]);
    element('missing').hidden = missing.length === 0;
    element('missing-what').textContent = missing.join(' and ');
    for (const role of ['detector', 'recogniser'] as const) {
      const shown = document.getElementById(role);
      const net = nets[role];
      if (shown)
        shown.textContent = net ? `${net.title}${net.licence ? ` (${net.licence})` : ''}` : 'none loaded';
    }
    document.body.classList.toggle('ready', missing.length === 0);
    dispatchEvent(new Event('nets'));
    if (missing.length === 0) say('Ready.');
    else say(`Waiting for the ${missing.join(' and the ')}.`);
  };
  const session: Session = {
    engine,
    nets,
    async takeWeights(files) {
      const weights = files.filter(isWeights);
      for (const group of groupsOf(weights)) {
        try {
          say(`Reading ${group.map((f) => f.file.name).join(', ')}…`, 'busy');
          const bytes = await Promise.all(group.map(async (f) => new Uint8Array(await f.file.arrayBuffer())));
          const net = await engine.loadFiles(bytes);
          nets[net.role] = net;
          note();
        } catch (error) {
          say((error as Error).message, 'error');
        }
      }
      return files.filter((f) => !isWeights(f));
    },
  };
  for (const served of await servedNets()) {
    try {
      // Whole addresses: a worker would take relative ones from where its own script lies.
      const files = served.files.map((f) => ({ ...f, url: new URL(f.url, document.baseURI).href }));
      nets[served.role] = await engine.loadUrls(served.role, files);
      lap(served.role);
    } catch (error) {
      say((error as Error).message, 'error');
    }
  }
  note();
  return session;
}

async function servedNets(): Promise<ServedNet[]> {
  try {
    const response = await fetch('weights/index.json');
    return response.ok ? ((await response.json()) as ServedNet[]) : [];
  } catch {
    return [];
  }
}

/** The three files of an MTCNN belong together, every other stands alone. */
function groupsOf(files: readonly Dropped[]): Dropped[][] {
  const trio = files.filter((f) => /^[pro]net\./i.test(f.file.name));
  const whole = trio.length === 3 ? [trio] : [];
  return [...whole, ...files.filter((f) => whole.length === 0 || !trio.includes(f)).map((f) => [f])];
}

/** Opens the chooser of a hidden file input from a button, and hands over what was chosen. */
export function chooser(button: string, input: string, callback: (files: FileList) => void): void {
  const field = element<HTMLInputElement>(input);
  element(button).addEventListener('click', () => field.click());
  field.addEventListener('change', () => {
    if (field.files && field.files.length > 0) callback(field.files);
    field.value = '';
  });
}
