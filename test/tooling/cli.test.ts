import { InvalidArgumentError } from 'commander';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { type CommandEntry, commands } from '../../src/cli/commands.js';
import { interruptible } from '../../src/cli/interrupt.js';
import { buildProgram, report, run } from '../../src/cli/main.js';
import { integerIn, numberIn } from '../../src/cli/options.js';
import { GpuError, WfrError } from '../../src/gpu/errors.js';

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  process.exitCode = undefined;
});

const entry = (name: string, action: () => unknown, loaded: string[] = []): CommandEntry => ({
  name,
  summary: `does ${name}`,
  load: async () => {
    loaded.push(name);
    return {
      define: (command) => void command.option('--deep', 'deeper').action(async () => void (await action())),
    };
  },
});

describe('the program', () => {
  it('loads only the command that is called', async () => {
    const loaded: string[] = [];
    const entries = [entry('one', () => {}, loaded), entry('two', () => {}, loaded)];
    const program = await buildProgram(['--help'], entries);
    expect(program.helpInformation()).toMatch(/one .*does one[\s\S]*two .*does two/);
    expect(loaded).toEqual([]);
    await run(['two', '--deep'], entries);
    expect(loaded).toEqual(['two']);
  });

  it('has help with examples for every command', async () => {
    for (const { name } of commands) {
      const written: string[] = [];
      vi.spyOn(process.stdout, 'write').mockImplementation((text) => written.push(String(text)) > 0);
      await run(['help', ...name.split(' ')]);
      vi.restoreAllMocks();
      expect(written.join('')).toMatch(
        new RegExp(`Usage: wfr ${name}[\\s\\S]*Examples:\\n  \\$ wfr ${name}`),
      );
      expect(process.exitCode).toBe(0);
    }
  });

  it('prints one clear message for a mistake and fails', async () => {
    const printed = vi.spyOn(console, 'error').mockImplementation(() => {});
    await run(['one'], [entry('one', () => Promise.reject(new WfrError('no such picture: a.jpg')))]);
    expect(printed.mock.calls).toEqual([['wfr: no such picture: a.jpg']]);
    expect(process.exitCode).toBe(1);
  });

  it('fails on an unknown command and suggests the one that was meant', async () => {
    const written: string[] = [];
    vi.spyOn(process.stderr, 'write').mockImplementation((text) => written.push(String(text)) > 0);
    await run(['docter']);
    expect(written.join('')).toMatch(/unknown command 'docter'[\s\S]*doctor/);
    expect(process.exitCode).toBe(1);
  });
});

describe('reporting errors', () => {
  const reported = (error: unknown): { text: string; status: number } => {
    let text = '';
    const status = report(error, (line) => (text += line));
    return { text, status };
  };

  it("shows people's mistakes and the system's complaints without a stack", () => {
    expect(reported(new GpuError('no adapter'))).toEqual({ text: 'wfr: no adapter', status: 1 });
    const missing = Object.assign(new Error("ENOENT: no such file, open 'x'"), { syscall: 'open' });
    expect(reported(missing).text).toBe("wfr: ENOENT: no such file, open 'x'");
  });

  it('calls everything else a bug and says how to see more', () => {
    expect(reported(new TypeError('x is undefined')).text).toMatch(
      /unexpected error: x is undefined\n.*WFR_DEBUG=1/,
    );
    vi.stubEnv('WFR_DEBUG', '1');
    expect(reported(new TypeError('x is undefined')).text).toMatch(/cli\.test\.ts/);
  });

  it('ends with status 130 after Ctrl-C', async () => {
    vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
    const work = interruptible(async (signal) => {
      process.emit('SIGINT');
      signal.throwIfAborted();
    });
    const error = await work.catch((reason: unknown) => reason);
    expect(reported(error)).toEqual({ text: 'wfr: interrupted', status: 130 });
    expect(process.listenerCount('SIGINT')).toBe(0);
  });
});

describe('numbers on the command line', () => {
  it('takes numbers in range', () => {
    expect(numberIn(-1, 1)('0.228')).toBe(0.228);
    expect(numberIn(0, Number.POSITIVE_INFINITY)('1e3')).toBe(1000);
    expect(integerIn(1, 8)('8')).toBe(8);
  });

  it.each(['', ' ', 'abc', '2', 'NaN', '1px'])('refuses %j and says what is allowed', (text) => {
    expect(() => numberIn(-1, 1)(text)).toThrow(InvalidArgumentError);
    expect(() => numberIn(-1, 1)(text)).toThrow(/from -1 to 1/);
  });

  it('refuses fractions where a whole number is needed', () => {
    expect(() => integerIn(1, 8)('1.5')).toThrow(/whole number from 1 to 8/);
  });
});
