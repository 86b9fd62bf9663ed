/**
 * The number that a flag gives; ends the script with a message where it is no whole number of at least 1.
 * @param {string} flag its name, without dashes
 * @param {string} text
 */
export function positiveWhole(flag, text) {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1) return value;
  console.error(`--${flag} ${text}: give a whole number of at least 1.`);
  process.exit(1);
}
