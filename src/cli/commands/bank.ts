import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import type { Command } from 'commander';
import { FaceError } from '../../face/errors.js';
import { addToBank, type LoadedBank, listBank, loadBank } from '../../face/facebank.node.js';
import { interruptible } from '../interrupt.js';
import { examples, gpuOptions, jsonOption, weightsOption } from '../options.js';
import { progress } from '../progress.js';
import { type Session, type SessionFlags, withSession } from '../session.js';
import { table } from '../table.js';

interface Flags extends SessionFlags {
  json?: boolean;
}

export function define(command: Command): void {
  const sub = (name: string, summary: string) =>
    gpuOptions(
      weightsOption(jsonOption(command.command(name).description(summary).exitOverride())),
    ).helpOption('-h, --help', 'show this help');
  sub('add', 'add pictures of a person')
    .argument('<bank>')
    .argument('<name>')
    .argument('<pictures...>')
    .action(add);
  sub('list', 'people and how many of their pictures can be used').argument('<bank>').action(list);
  sub('remove', 'remove a person and their pictures from the bank')
    .argument('<bank>')
    .argument('<name>')
    .action(remove);
  sub('check', 'find pictures without a face or with several, duplicates and outliers')
    .argument('<bank>')
    .action(check);
  examples(command, [
    ['wfr bank add people/ "Łukasz Nowak" a.jpg b.jpg', 'copies the pictures into people/Łukasz Nowak/'],
    ['wfr bank list people/', 'who is in it'],
    ['wfr bank check people/', 'what weakens it'],
    ['wfr bank remove people/ "Łukasz Nowak"', 'deletes that folder'],
  ]);
}

async function add(bank: string, name: string, pictures: string[], flags: Flags): Promise<void> {
  const added = await addToBank(bank, name, pictures);
  const loaded = await load(bank, flags);
  const files = new Set(added.map((f) => path.relative(bank, f)));
  const mine = loaded.pictures.filter((p) => files.has(p.picture));
  for (const { picture, problem, faces } of mine) {
    if (problem) console.error(`${picture}: ${problem}: it is kept but names nobody`);
    else if (faces > 1) console.error(`${picture}: ${faces} faces, the main one was taken`);
  }
  if (mine.some((p) => p.problem)) process.exitCode = 1;
  if (flags.json) console.log(JSON.stringify({ name, added: mine }, null, 2));
  else
    console.log(`${name}: ${mine.filter((p) => !p.problem).length} of ${mine.length} pictures can be used`);
}

async function list(bank: string, flags: Flags): Promise<void> {
  const { pictures } = await load(bank, flags);
  const people = new Map<string, { pictures: number; usable: number }>();
  for (const { name, problem } of pictures) {
    const person = people.get(name) ?? { pictures: 0, usable: 0 };
    people.set(name, { pictures: person.pictures + 1, usable: person.usable + (problem ? 0 : 1) });
  }
  if (flags.json) console.log(JSON.stringify(Object.fromEntries(people), null, 2));
  else
    console.log(
      table(
        ['person', 'pictures>', 'usable>'],
        [...people].map(([name, p]) => [name, p.pictures, p.usable]),
      ),
    );
}

async function remove(bank: string, name: string, flags: Flags): Promise<void> {
  const known = [...new Set((await listBank(bank)).map((f) => f.name))];
  const folder = path.join(bank, name);
  if (!known.includes(name.normalize('NFC')) || !existsSync(folder)) {
    throw new FaceError(`${name} is not in ${bank}. It holds: ${known.join(', ')}.`);
  }
  await rm(folder, { recursive: true });
  if (flags.json) console.log(JSON.stringify({ removed: name }));
  else console.log(`${name} and the pictures in ${folder} were removed`);
}

async function check(bank: string, flags: Flags): Promise<void> {
  await withSession(flags, async (session) => {
    const loaded = await loadWith(session, bank);
    const threshold =
      (await session.weights('recogniser')).metadata.threshold?.similarity ??
      (await session.recognizer()).threshold;
    const findings: { kind: string; picture: string; detail: string }[] = [];
    for (const { picture, faces, problem } of loaded.pictures) {
      if (problem) findings.push({ kind: 'unusable', picture, detail: problem });
      else if (faces > 1)
        findings.push({ kind: 'several faces', picture, detail: `${faces} faces; the main one was taken` });
    }
    for (const { a, b, similarity } of loaded.bank.lookalikes(threshold)) {
      findings.push({
        kind: 'lookalike',
        picture: a.picture,
        detail: `${similarity.toFixed(2)} like ${b.picture}: the same person under two names?`,
      });
    }
    for (const { entry, similarity } of loaded.bank.outliers(threshold)) {
      findings.push({
        kind: 'outlier',
        picture: entry.picture,
        detail: `at most ${similarity.toFixed(2)} like ${entry.name}'s other pictures`,
      });
    }
    if (flags.json) console.log(JSON.stringify({ threshold, findings }, null, 2));
    else if (findings.length === 0)
      console.log(
        `${loaded.pictures.length} pictures of ${loaded.bank.names.length} people: nothing to mend`,
      );
    else
      console.log(
        table(
          ['what', 'picture', ''],
          findings.map((f) => [f.kind, f.picture, f.detail]),
        ),
      );
    if (findings.length > 0) process.exitCode = 1;
  });
}

const load = (bank: string, flags: Flags): Promise<LoadedBank> =>
  withSession(flags, (session) => loadWith(session, bank));

function loadWith(session: Session, bank: string): Promise<LoadedBank> {
  return interruptible(async (signal) => {
    let bar: ReturnType<typeof progress> | undefined;
    try {
      return await loadBank(bank, () => session.recognizer(), {
        weightsHash: await session.weightsHash(),
        signal,
        onPicture: (_, total, { picture }) => {
          bar ??= progress(total, 'pictures');
          bar.step(picture);
        },
      });
    } finally {
      bar?.stop();
    }
  });
}
