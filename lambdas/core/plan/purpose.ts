/**
 * What a run is for. `encrypt`: it switches the trigger on, and its rollback switches it off. `rotate` and `verify` begin
 * with the trigger on, in a table that is encrypted, and leave it on whatever happens: `rotate` moves rows from one key to
 * the next, `verify` encrypts what is missing and opens every row.
 */
export type Purpose = 'encrypt' | 'rotate' | 'verify';

/** Of a run over tables that have each their own: a rotation moves all that are encrypted; else it is about what is not yet. */
export function purposeOfAll(tables: readonly { readonly purpose: Purpose }[]): Purpose {
  const has = (purpose: Purpose) => tables.some((table) => table.purpose === purpose);
  return has('rotate') ? 'rotate' : has('encrypt') || tables.length === 0 ? 'encrypt' : 'verify';
}

/** In words; empty for the usual one. */
export const purposeInWords: Readonly<Record<Purpose, string>> = {
  encrypt: '',
  rotate: 'a rotation of the key',
  verify: 'a verification of a table that was complete',
};
