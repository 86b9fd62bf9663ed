import type { WeightsMetadata } from '../weights/metadata.js';
import type { Recipe } from './recipe.js';

export interface CardInput {
  title: string;
  recipe: Recipe;
  /** The command line, as one would repeat it. */
  command: string;
  /** Data sets by name, with pictures and identities. */
  data: readonly { name: string; pictures: number; identities: number; teacher?: string }[];
  steps: number;
  hours: number;
  device: string;
  /** Figures at the end, name and value. */
  results: readonly (readonly [name: string, value: string])[];
}

/** What the weights say about themselves. */
export function metadataOf({ title, recipe, data }: CardInput): WeightsMetadata {
  return {
    net: recipe.net,
    config: recipe.description.config,
    title,
    input: recipe.description.input,
    preprocessing: recipe.description.preprocessing,
    data: data.map(({ name }) => name).join(', '),
  };
}

/** A model card in Markdown: what the weights are, how they came to be, and what to beware of. */
export function modelCard(input: CardInput): string {
  const { title, recipe, command, data, steps, hours, device, results } = input;
  const { input: size } = recipe.description;
  const rows = data.map(
    ({ name, pictures, identities, teacher }) =>
      `| ${name} | ${pictures} | ${identities || '–'} | ${teacher ?? '–'} |`,
  );
  return `# ${title}

Net: ${recipe.net}, input ${size?.height}×${size?.width} RGB, faces aligned to the five-point template.

## Recipe

\`\`\`sh
${command}
\`\`\`

${steps} steps of ${recipe.batch * (recipe.accumulate ?? 1)} pictures, seed ${recipe.seed}, ${hours.toFixed(1)} hours on ${device}.

## Data

| set | pictures | identities | teacher |
|---|---|---|---|
${rows.join('\n')}

The terms of the data sets apply to what is made of them: check whether they allow your use.

## Figures

${results.length > 0 ? `| | |\n|---|---|\n${results.map(([name, value]) => `| ${name} | ${value} |`).join('\n')}` : 'Nothing was measured during the run.'}

## Weaknesses

Accuracy differs between groups of people as the data does: measure on people like those it will see, and calibrate the
threshold on them (\`wfr lfw --calibrate\`). Not for decisions about people without a person who checks them.
`;
}
