import type { Command } from 'commander';

/** What a file in `commands/` exports: it adds arguments, options, examples and the action to a command. */
export interface CommandModule {
  define(command: Command): void;
}

export interface CommandEntry {
  /** One word, or two for a command that stands under another: `train mtcnn`. */
  readonly name: string;
  /** The line in `wfr --help`. */
  readonly summary: string;
  load(): Promise<CommandModule>;
}

/**
 * Every command, in the order of the help. A new one is a file in `commands/` that exports `define`, and a
 * line here; it is loaded only when it is called, so that `wfr --help` needs neither GPU nor codecs.
 */
export const commands: readonly CommandEntry[] = [
  {
    name: 'annotate',
    summary: 'find the faces in pictures, name those in a facebank, draw boxes and names',
    load: () => import('./commands/annotate.js'),
  },
  {
    name: 'detect',
    summary: 'boxes, landmarks and scores of the faces in pictures',
    load: () => import('./commands/detect.js'),
  },
  {
    name: 'verify',
    summary: 'do two pictures show the same person?',
    load: () => import('./commands/verify.js'),
  },
  {
    name: 'bank',
    summary: 'keep a facebank: add, list, remove, check',
    load: () => import('./commands/bank.js'),
  },
  {
    name: 'lfw',
    summary: 'measure verification accuracy on LFW and its like, calibrate the threshold',
    load: () => import('./commands/lfw.js'),
  },
  {
    name: 'align',
    summary: 'cut out and align the main face of every picture, for training',
    load: () => import('./commands/align.js'),
  },
  {
    name: 'train',
    summary: 'train a recogniser on your own pictures, or from a teacher',
    load: () => import('./commands/train.js'),
  },
  {
    name: 'train mtcnn',
    summary: 'train the face detector',
    load: () => import('./commands/train_mtcnn.js'),
  },
  {
    name: 'weights',
    summary: 'list, download, inspect and convert weights, or export a net to ONNX',
    load: () => import('./commands/weights.js'),
  },
  {
    name: 'tune',
    summary: 'measure once which kernels suit your graphics card',
    load: () => import('./commands/tune.js'),
  },
  {
    name: 'doctor',
    summary: 'show what wfr finds on this machine, and what to do about what is missing',
    load: () => import('./commands/doctor.js'),
  },
];
