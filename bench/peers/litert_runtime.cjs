// @litertjs/core's threaded WebAssembly loader, as CommonJS. Emscripten wrote it so, but the package calls itself of
// type "module", and Node would read it as that. Its threads start the file that `__filename` names: this one again.
const { readFileSync } = require('node:fs');
const path = require('node:path');
const { compileFunction } = require('node:vm');

const folder = path.join(path.dirname(require.resolve('@litertjs/core')), '..', 'wasm');
const script = path.join(folder, 'litert_wasm_threaded_internal.js');
const parameters = ['require', 'module', '__filename', '__dirname', 'exports'];
const compiled = compileFunction(readFileSync(script, 'utf8'), parameters, { filename: script });
compiled(require, module, __filename, folder, module.exports);
