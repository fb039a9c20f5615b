import { expect, test } from 'vitest';
import { Target } from '../../lambdas/core/plan/settings.ts';
import { samples } from '../../rehearsal/database/samples.ts';
import { introduction } from '../../rehearsal/introduction.ts';

const [first, second] = samples.map(({ target }) => Target.parse(target));
if (first === undefined || second === undefined) throw new Error('there are samples');
const writes = {
  isLive: 'false',
  key: 'id',
  insert: async () => '1',
  edit: async () => undefined,
  remove: async () => undefined,
};
const found = { rows: 300, rowsWithPii: 285 };
const theirs = { ...found, target: first, fresh: false, live: null };
const seeded = { ...theirs, live: writes };
const [one, other] = ['public.appointments', `${second.schema}.${second.table}`];
const copy = { databaseUrl: 'postgresql://u:seekrit@db/shop' };

test.each([
  [
    'of tables of a copy, what concerns all of them is said once',
    [theirs, { ...theirs, target: second }],
    { ...copy, rows: 5_000 },
    [
      `${one}: 300 rows, 285 with personal data.`,
      `${other}: 300 rows, 285 with personal data.`,
      "They are not of the rehearsal's making, so live traffic is left out; --rows does not apply.",
    ],
  ],
  [
    'what nobody has asked for is not mentioned',
    [theirs],
    copy,
    [
      `${one}: 300 rows, 285 with personal data.`,
      "They are not of the rehearsal's making, so live traffic is left out.",
    ],
  ],
  [
    'of some of the tables they are named',
    [
      { ...seeded, fresh: true },
      { ...theirs, target: second },
    ],
    copy,
    [
      `${one}: 300 rows, 285 with personal data, all of them fictitious.`,
      `${other}: 300 rows, 285 with personal data.`,
      `Those of ${other} are not of the rehearsal's making, so live traffic is left out.`,
    ],
  ],
  [
    'of an earlier rehearsal',
    [seeded],
    { ...copy, rows: 5_000 },
    [
      `${one}: 300 rows, 285 with personal data, seeded by an earlier rehearsal.`,
      '--rows does not apply where there are rows.',
    ],
  ],
  [
    // Which has said why, where it tried.
    'of a dump, also where live traffic is refused',
    [seeded, { ...theirs, target: second }],
    { load: 'dump.sql' },
    [
      `${one}: 300 rows, 285 with personal data, as they were loaded.`,
      `${other}: 300 rows, 285 with personal data, as they were loaded.`,
    ],
  ],
])('%s', (_, tables, options, said) => {
  expect(introduction(tables, options)).toEqual(said);
});
