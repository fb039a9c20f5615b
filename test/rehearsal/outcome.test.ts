import { expect, test } from 'vitest';
import type { Options } from '../../rehearsal/options.ts';
import { howToGoOn } from '../../rehearsal/outcome.ts';

const options: Options = { fresh: false, tables: 1, approvals: [] };

test.each<[string, Partial<Options>, boolean, string]>([
  ['resumed', {}, true, 'To resume: npm start'],
  [
    'resumed with its configuration',
    { databaseUrl: 'postgresql://u:seekrit@db/shop', config: 'my rollout.json' },
    true,
    "To resume: npm start -- --config 'my rollout.json' --database-url …",
  ],
  [
    'of a dump, which is not in a temporary directory',
    { load: 'dump.sql', config: 'rollout.json' },
    false,
    'Its database is removed: with --load a rehearsal begins anew each time.',
  ],
  ['beside another one', {}, false, 'This rehearsal was in a temporary directory, and is removed.'],
])('what becomes of a rehearsal that was stopped: %s', (_, given, resumable, said) => {
  expect(howToGoOn({ ...options, ...given }, resumable)).toBe(said);
});
