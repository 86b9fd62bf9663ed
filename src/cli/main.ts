import { Command, CommanderError } from 'commander';
import { WfrError } from '../gpu/errors.js';
import { type CommandEntry, commands } from './commands.js';
import { INTERRUPTED } from './interrupt.js';
import { examples } from './options.js';
import { wfrVersion } from './version.js';

/**
 * Runs the command line and sets the exit status: 0 done, 1 failed or wrongly called, 130 interrupted.
 * @param argv without node and script
 */
export async function run(
  argv: readonly string[],
  entries: readonly CommandEntry[] = commands,
): Promise<void> {
  // `wfr … | head` closes the pipe early; that is nobody's mistake.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
  try {
    const asked = helpOfTwoWords(argv, entries) ?? argv;
    const program = await buildProgram(asked, entries);
    await program.parseAsync([...asked], { from: 'user' });
  } catch (error) {
    process.exitCode = report(error);
  }
}

/** `help train mtcnn` as `train mtcnn --help`: commander's own help command looks at one word. */
function helpOfTwoWords(
  argv: readonly string[],
  entries: readonly CommandEntry[],
): readonly string[] | undefined {
  const name = argv.slice(1, 3).join(' ');
  const isOne = argv[0] === 'help' && argv.length === 3 && entries.some((entry) => entry.name === name);
  return isOne ? [...argv.slice(1), '--help'] : undefined;
}

/** The program with the called command defined in full and the others by name and summary only. */
export async function buildProgram(
  argv: readonly string[],
  entries: readonly CommandEntry[],
): Promise<Command> {
  const program = new Command('wfr')
    .description('Face recognition on WebGPU: finds, aligns and names the faces in pictures.')
    .version(wfrVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'show this help')
    .helpCommand('help [command]', 'show the help of a command')
    .showSuggestionAfterError()
    .exitOverride();
  const words = argv.filter((word) => !word.startsWith('-'));
  const [called, below] = words[0] === 'help' ? words.slice(1) : words;
  // A command of two words takes the place of the one it stands under.
  const isTwoWords = entries.some(({ name }) => name === `${called} ${below}`);
  for (const entry of entries) {
    const [name, second] = entry.name.split(' ');
    if (isTwoWords ? name === called && second !== below : second) continue;
    const parent = second ? program.command(name).exitOverride() : program;
    const command = parent
      .command(second ?? name)
      .description(entry.summary)
      .exitOverride();
    command.helpOption('-h, --help', 'show this help').showHelpAfterError('(add --help for the options)');
    if (name === called) (await entry.load()).define(command);
  }
  examples(program, [
    ['wfr doctor', 'is this machine ready?'],
    ['wfr weights pull mtcnn', 'fetch a detector'],
    ['wfr annotate group.jpg --bank people/', 'who is in the picture?'],
    ['wfr help annotate', 'the options of a command'],
  ]);
  if (argv.length === 0) program.action(() => program.outputHelp());
  return program;
}

/** Prints an error for the person at the terminal and returns the exit status. */
export function report(
  error: unknown,
  print: (text: string) => void = (text) => console.error(text),
): number {
  // commander has printed its own message; help and --version come here too, with status 0.
  if (error instanceof CommanderError) return error.exitCode;
  const debug = Boolean(process.env.WFR_DEBUG);
  if (error instanceof Error && error.name === 'AbortError') {
    print('wfr: interrupted');
    return INTERRUPTED;
  }
  if (debug) {
    print(error instanceof Error ? (error.stack ?? error.message) : String(error));
    return 1;
  }
  if (error instanceof WfrError || isSystemError(error)) {
    print(`wfr: ${error.message}`);
    return 1;
  }
  const message = error instanceof Error ? error.message : String(error);
  print(
    `wfr: unexpected error: ${message}\nThis is probably a bug in wfr. Set WFR_DEBUG=1 to see where it happened.`,
  );
  return 1;
}

/** Errors of the operating system (no such file, no permission, disk full) name the path themselves. */
function isSystemError(error: unknown): error is Error {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === 'string';
}
