/** What can happen to an encrypted table, as actions that a seed chooses. */
import fc from 'fast-check';
import { text } from './arbitraries.ts';

export type Value = string | null;
/** Of three columns that are encrypted from the beginning, and of one that may be added to them. */
export type Values = readonly [Value, Value, Value, Value];

/** Batches fail on rows whose first name is this, while the fault is on. */
export const poison = 'poison';

const value = fc.oneof({ weight: 1, arbitrary: fc.constant(null) }, { weight: 4, arbitrary: text });
const firstName = fc.oneof({ weight: 1, arbitrary: fc.constant(poison) }, { weight: 3, arbitrary: value });
const values: fc.Arbitrary<Values> = fc.tuple(value, value, firstName, value);
/** Which row, name or partition: modulo the number of them. */
const which = fc.nat(20);
const limit = fc.integer({ min: 1, max: 6 });
const commit = fc.boolean();

const kinds = {
  insert: fc.record({ do: fc.constant('insert'), values, part: which }),
  edit: fc.record({ do: fc.constant('edit'), row: which, values }),
  editOne: fc.record({ do: fc.constant('editOne'), row: which, column: fc.nat(3), value }),
  touch: fc.record({ do: fc.constant('touch'), row: which }),
  writeSame: fc.record({ do: fc.constant('writeSame'), row: which }),
  changeKey: fc.record({ do: fc.constant('changeKey'), row: which }),
  move: fc.record({ do: fc.constant('move'), row: which, part: which, values: fc.option(values) }),
  remove: fc.record({ do: fc.constant('remove'), row: which }),
  editAndRollBack: fc.record({ do: fc.constant('editAndRollBack'), row: which, values }),
  batch: fc.record({ do: fc.constant('batch'), limit }),
  interruptedBatch: fc.record({ do: fc.constant('interruptedBatch'), limit }),
  batchDuringEdit: fc.record({ do: fc.constant('batchDuringEdit'), row: which, values, limit, commit }),
  editDuringBatch: fc.record({ do: fc.constant('editDuringBatch'), row: which, values, limit, commit }),
  trigger: fc.record({ do: fc.constant('trigger'), on: fc.boolean() }),
  poison: fc.record({ do: fc.constant('poison'), on: fc.boolean() }),
  resume: fc.record({ do: fc.constant('resume') }),
  rewrite: fc.record({ do: fc.constant('rewrite') }),
  detach: fc.record({ do: fc.constant('detach'), part: which, concurrently: fc.boolean() }),
  attach: fc.record({ do: fc.constant('attach'), part: which }),
  editApart: fc.record({ do: fc.constant('editApart'), part: which, row: which, values }),
  rename: fc.record({ do: fc.constant('rename'), name: which, follow: fc.boolean() }),
  follow: fc.record({ do: fc.constant('follow') }),
  addColumn: fc.record({ do: fc.constant('addColumn') }),
  keep: fc.record({ do: fc.constant('keep'), row: which }),
  save: fc.record({ do: fc.constant('save'), row: which, values: fc.option(values) }),
  paste: fc.record({ do: fc.constant('paste'), row: which, from: which, columns: fc.nat(31) }),
  retype: fc.record({ do: fc.constant('retype'), column: fc.nat(3), type: fc.nat(2) }),
  dropColumn: fc.record({ do: fc.constant('dropColumn'), column: fc.nat(3) }),
  takeOut: fc.record({ do: fc.constant('takeOut'), column: fc.nat(3) }),
} as const;
export type Action = {
  [K in keyof typeof kinds]: (typeof kinds)[K] extends fc.Arbitrary<infer A> ? A : never;
}[keyof typeof kinds];

/** What happens, and to which of the two tables. */
export type Step = Action & { readonly of?: number };

export const steps: fc.Arbitrary<Step[]> = fc.array(
  fc
    .tuple(fc.oneof(...Object.values(kinds)) as fc.Arbitrary<Action>, fc.nat(1))
    .map(([action, of]) => ({ ...action, of })),
  { minLength: 1, maxLength: 30, size: 'max' },
);
