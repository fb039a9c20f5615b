/**
 * What a run is for. `encrypt`: it switches the trigger on, and its rollback switches it off. `rotate` and `verify` begin
 * with the trigger on, in a table that is encrypted, and leave it on whatever happens: `rotate` moves rows from one key to
 * the next, `verify` encrypts what is missing and opens every row.
 */
export type Purpose = 'encrypt' | 'rotate' | 'verify';

/** In words; empty for the usual one. */
export const purposeInWords: Readonly<Record<Purpose, string>> = {
  encrypt: '',
  rotate: 'a rotation of the key',
  verify: 'a verification of a table that was complete',
};
