/**
 * Python's pickle, read as data: a stack machine that knows only containers, numbers, strings and the constructors
 * that its caller allows. Every other global is refused by name, so nothing in a file can run.
 * Protocols 2 to 5 as written by `pickle`, NumPy and PyTorch, and the binary opcodes of protocol 1.
 */
import { WeightsError } from '../errors.js';

export type Global = (...args: unknown[]) => unknown;

export interface PickleOptions {
  /** What `module.name` stands for; undefined refuses it. */
  global: (module: string, name: string) => Global | undefined;
  /** Persistent ids (PyTorch's storages). */
  persistent?: (id: unknown) => unknown;
  /** Applies the state given by BUILD; the default refuses any. */
  build?: (target: unknown, state: unknown) => unknown;
  maxDepth?: number;
  maxItems?: number;
}

const MARK = Symbol('mark');

export interface PickleResult {
  value: unknown;
  /** Offset of the byte after STOP. */
  end: number;
}

/** Marks a global that was pushed on the stack, callable by REDUCE and NEWOBJ only. */
class GlobalReference {
  constructor(
    readonly name: string,
    readonly construct: Global,
  ) {}
}

/** A dict of Python; keys are usually strings. */
export type PickleDict = Map<unknown, unknown>;

/** @throws WeightsError for anything malformed, beyond the limits, or naming a refused global. */
export function readPickle(bytes: Uint8Array, options: PickleOptions, start = 0): PickleResult {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const latin1 = new TextDecoder('latin1');
  const utf8 = new TextDecoder('utf-8');
  const maxDepth = options.maxDepth ?? 100_000;
  const maxItems = options.maxItems ?? 10_000_000;
  const stack: unknown[] = [];
  const memo = new Map<number, unknown>();
  let at = start;
  let items = 0;

  const fail = (why: string): never => {
    throw new WeightsError(`pickle: ${why} at byte ${at}.`);
  };
  const take = (n: number): number => {
    if (n < 0 || at + n > bytes.length) fail(`truncated: ${n} bytes wanted, ${bytes.length - at} left,`);
    at += n;
    return at - n;
  };
  const u8 = () => bytes[take(1)];
  const u32 = () => view.getUint32(take(4), true);
  const u64 = () => Number(view.getBigUint64(take(8), true));
  const slice = (n: number) => {
    const from = take(n);
    return bytes.subarray(from, from + n);
  };
  const line = () => {
    const end = bytes.indexOf(10, at);
    if (end < 0) fail('truncated line');
    const from = take(end - at + 1);
    return latin1.decode(bytes.subarray(from, end));
  };
  const push = (value: unknown) => {
    if (stack.length >= maxDepth || ++items > maxItems) fail('too deep or too many items');
    stack.push(value);
  };
  const pop = (): unknown => (stack.length > 0 ? stack.pop() : fail('stack underflow'));
  const top = (): unknown => (stack.length > 0 ? stack[stack.length - 1] : fail('stack underflow'));
  const popMark = (): unknown[] => {
    const i = stack.lastIndexOf(MARK);
    if (i < 0) fail('no mark');
    const values = stack.splice(i + 1);
    stack.pop();
    return values;
  };
  const remember = (key: number) => memo.set(key, top());
  const recall = (key: number) => push(memo.has(key) ? memo.get(key) : fail(`memo ${key} was never set`));
  const long = (n: number): number | bigint => {
    let value = 0n;
    const digits = slice(n);
    for (let i = n - 1; i >= 0; i--) value = (value << 8n) | BigInt(digits[i]);
    if (n > 0 && digits[n - 1] & 0x80) value -= 1n << BigInt(8 * n);
    return value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER)
      ? Number(value)
      : value;
  };
  const global = (module: string, name: string) => {
    const construct = options.global(module, name);
    if (!construct) {
      throw new WeightsError(
        `pickle: the file wants to use ${module}.${name}, which reading weights does not need: refused.`,
      );
    }
    push(new GlobalReference(`${module}.${name}`, construct));
  };
  const reduce = () => {
    const args = pop();
    const callee = pop();
    if (!(callee instanceof GlobalReference) || !Array.isArray(args))
      return fail('REDUCE of something that is not a constructor');
    push(callee.construct(...args));
  };
  const setItems = (pairs: unknown[]) => {
    const target = top();
    if (!(target instanceof Map)) return fail('SETITEMS on something that is not a dict');
    for (let i = 0; i + 1 < pairs.length; i += 2) target.set(pairs[i], pairs[i + 1]);
  };
  const append = (values: unknown[]) => {
    const target = top();
    if (!Array.isArray(target)) return fail('APPENDS on something that is not a list');
    for (const v of values) target.push(v);
  };
  const asString = (value: unknown): string =>
    typeof value === 'string' ? value : fail('a name that is not a string');

  for (;;) {
    const code = u8();
    switch (String.fromCharCode(code)) {
      case '\x80':
        if (u8() > 5) fail('unknown protocol');
        break;
      case '\x95':
        take(8);
        break;
      case '(':
        push(MARK);
        break;
      case '.':
        return { value: pop(), end: at };
      case '0':
        pop();
        break;
      case '1':
        popMark();
        break;
      case '2':
        push(top());
        break;
      case 'N':
        push(null);
        break;
      case '\x88':
        push(true);
        break;
      case '\x89':
        push(false);
        break;
      case 'I': {
        const s = line();
        push(s === '01' ? true : s === '00' ? false : Number.parseInt(s, 10));
        break;
      }
      case 'L':
        push(Number.parseInt(line(), 10));
        break;
      case 'F':
        push(Number.parseFloat(line()));
        break;
      case 'J':
        push(view.getInt32(take(4), true));
        break;
      case 'K':
        push(u8());
        break;
      case 'M':
        push(view.getUint16(take(2), true));
        break;
      case '\x8a':
        push(long(u8()));
        break;
      case '\x8b':
        push(long(u32()));
        break;
      case 'G':
        push(view.getFloat64(take(8), false));
        break;
      case 'S': {
        const s = line();
        push(s.replace(/^(['"])(.*)\1$/, '$2'));
        break;
      }
      case 'V':
        push(line());
        break;
      case 'U':
        push(slice(u8()));
        break;
      case 'T':
        push(slice(u32()));
        break;
      case 'C':
        push(slice(u8()));
        break;
      case 'B':
        push(slice(u32()));
        break;
      case '\x8e':
        push(slice(u64()));
        break;
      case '\x96':
        push(slice(u64()));
        break;
      case '\x8c':
        push(utf8.decode(slice(u8())));
        break;
      case 'X':
        push(utf8.decode(slice(u32())));
        break;
      case '\x8d':
        push(utf8.decode(slice(u64())));
        break;
      case ')':
        push([]);
        break;
      case ']':
        push([]);
        break;
      case '}':
        push(new Map());
        break;
      case '\x8f':
        push(new Set());
        break;
      case 't':
      case 'l':
        push(popMark());
        break;
      case 'd': {
        const pairs = popMark();
        push(new Map());
        setItems(pairs);
        break;
      }
      case '\x85':
        push([pop()]);
        break;
      case '\x86': {
        const b = pop();
        push([pop(), b]);
        break;
      }
      case '\x87': {
        const c = pop();
        const b = pop();
        push([pop(), b, c]);
        break;
      }
      case 'a': {
        const v = pop();
        append([v]);
        break;
      }
      case 'e':
        append(popMark());
        break;
      case 's': {
        const v = pop();
        const k = pop();
        setItems([k, v]);
        break;
      }
      case 'u':
        setItems(popMark());
        break;
      case 'c': {
        const module = line();
        global(module, line());
        break;
      }
      case '\x93': {
        const name = asString(pop());
        global(asString(pop()), name);
        break;
      }
      case 'R':
        reduce();
        break;
      case '\x81':
        reduce();
        break;
      case 'b': {
        const state = pop();
        const target = pop();
        push(options.build ? options.build(target, state) : fail('an object with state'));
        break;
      }
      case 'Q': {
        const id = pop();
        push(options.persistent ? options.persistent(id) : fail('a persistent id'));
        break;
      }
      case 'p':
        remember(Number.parseInt(line(), 10));
        break;
      case 'q':
        remember(u8());
        break;
      case 'r':
        remember(u32());
        break;
      case '\x94':
        memo.set(memo.size, top());
        break;
      case 'g':
        recall(Number.parseInt(line(), 10));
        break;
      case 'h':
        recall(u8());
        break;
      case 'j':
        recall(u32());
        break;
      default:
        fail(`opcode 0x${code.toString(16)} is not supported`);
    }
  }
}

/** Python 2 byte strings and Python 3 strings alike, as text. */
export function text(value: unknown): string {
  if (typeof value === 'string') return value;
  if (value instanceof Uint8Array) return new TextDecoder('latin1').decode(value);
  throw new WeightsError(`pickle: a string was expected, got ${typeof value}.`);
}
