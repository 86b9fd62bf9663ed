import { basename, join } from 'node:path';
import { defineConfig, type Plugin } from 'vite';

const PAGES = [
  ['index.html', 'Photo'],
  ['camera.html', 'Camera'],
  ['train.html', 'Train'],
] as const;

const header = (current: string) => `<header>
      <a class="brand" href="./index.html"><i></i>wfr</a>
      <nav aria-label="Pages">${PAGES.map(
        ([file, name]) => `<a href="./${file}"${file === current ? ' aria-current="page"' : ''}>${name}</a>`,
      ).join('')}</nav>
      <div class="meta">Nothing leaves this page<br /><span id="adapter">WebGPU</span></div>
    </header>`;

const notices = `<section class="card notice bad" id="no-webgpu" role="alert" hidden>
        <h2>No WebGPU here</h2>
        <p id="no-webgpu-reason"></p>
        <p class="hint">This page computes on the graphics processor through WebGPU, and has no slower way without it.</p>
      </section>
      <section class="card notice" id="missing" hidden>
        <h2>Weights are missing: the <span id="missing-what"></span></h2>
        <p>None are served with this page. Drop weights files anywhere here (safetensors, PyTorch, NumPy, MXNet; an MTCNN may be three files), or choose them:</p>
        <div class="bar"><button id="choose-weights" type="button">Choose weights</button></div>
        <p class="hint">Trained weights can be had with <code>wfr weights pull</code>; <code>npm run demo:web</code> then serves them.</p>
        <input type="file" id="weights-files" multiple hidden />
      </section>`;

const weights = `<section class="card" aria-labelledby="weights-title">
          <h2 id="weights-title">Weights</h2>
          <dl><dt>Detector</dt><dd id="detector">none loaded</dd><dt>Recogniser</dt><dd id="recogniser">none loaded</dd></dl>
          <p class="hint">Drop other weights files anywhere to use them instead.</p>
        </section>`;

/** What the pages have in common. */
const partials: Plugin = {
  name: 'partials',
  transformIndexHtml: {
    order: 'pre',
    handler: (html, { filename }) =>
      html
        .replace('<!--header-->', header(basename(filename)))
        .replace('<!--notices-->', notices)
        .replace('<!--weights-->', weights),
  },
};

/** What only Node takes; a page never asks for it. */
const nodeOnly = (): Plugin => ({
  name: 'node-only',
  enforce: 'pre',
  resolveId: (id) => (/\.node\.js$/.test(id) ? '\0node-only' : undefined),
  load: (id) => (id === '\0node-only' ? 'export {};' : undefined),
});

export default defineConfig({
  root: import.meta.dirname,
  // Relative addresses: the built folder works below any path.
  base: './',
  plugins: [partials, nodeOnly()],
  worker: { format: 'es', plugins: () => [nodeOnly()] },
  build: {
    outDir: 'out',
    emptyOutDir: true,
    target: 'es2022',
    rollupOptions: {
      input: PAGES.map(([file]) => join(import.meta.dirname, file)),
    },
  },
});
