import { expect, test } from 'vitest';
import { tellable, tellableName } from '../../../../lambdas/core/stopping/redacted-statements.ts';

test.each([
  ["select * from users where email = 'jane@example.com'", undefined, 'SELECT …'],
  ['  ( select 1 )', undefined, 'SELECT …'],
  [
    'select name from users where id = 4711',
    'select name\n  from users where id = $1',
    'select name from users where id = $1',
  ],
  ['update t1 set a = 2', 'update t1 set a = $1', 'update t1 set a = $1'],
  [
    'select 1 where 1 in (1, 2, 3)',
    'select $1 where $2 in ($3 /*, ... */)',
    'select $1 where $2 in ($3 , …)',
  ],
  // Stored as it was sent: evicted before it had ended, or with a comment.
  ["insert into t values ('jane')", "insert into t values ('jane')", 'INSERT …'],
  ['select 4111111111111111', 'select 4111111111111111', 'SELECT …'],
  ['select .5', 'select .5', 'SELECT …'],
  ['select $$jane$$', 'select $$jane$$', 'SELECT …'],
  ['select $x$jane$x$', 'select $x$jane$x$', 'SELECT …'],
  ['select 1 -- jane', 'select $1 -- jane', 'SELECT …'],
  ['select 1 /* jane */', 'select $1 /* jane */', 'SELECT …'],
  // Never normalized.
  ["create role jane password 'x'", "create role jane password 'x'", 'CREATE …'],
  // Not a statement at all, left behind in a session whose transaction failed.
  ['jane@example.com', 'jane@example.com', 'a statement'],
  ['/* jane */ select 1', undefined, 'a statement'],
  ['', undefined, 'a statement'],
  ['<insufficient privilege>', undefined, 'a statement'],
  ['select 1', '<insufficient privilege>', '<insufficient privilege>'],
])('%s is told as far as it may be', (text, stored, told) => {
  expect(tellable(text, stored)).toBe(told);
});

test('a long statement is cut', () => {
  const long = `select ${'a, '.repeat(200)}a from t`;
  expect(tellable(long, long).length).toBeLessThan(170);
});

test.each([
  ['psql', 'psql'],
  ['', ''],
  ['PostgreSQL JDBC Driver', 'PostgreSQL JDBC Driver'],
  ['Sidekiq 7.2 web [3 of 10 busy]', 'Sidekiq 7.2 web [3 of 10 busy]'],
  [
    'encryption-rollout 6f1c1f3e-7c0f-4a9e-9a43-0d3f0a5e0001 1',
    'encryption-rollout 6f1c1f3e-7c0f-4a9e-9a43-0d3f0a5e0001 1',
  ],
  ['web: jane@example.com', 'a name that is not told'],
  ['+1 555 0123', 'a name that is not told'],
  ["O'Hara", 'a name that is not told'],
  ['psql [Acknowledge this page](https://example.com/login)', 'a name that is not told'],
  ['psql [Acknowledge](example.com)', 'a name that is not told'],
  ['see www.example.com', 'a name that is not told'],
])('of the session %s is told: %s', (application, told) => {
  expect(tellableName(application)).toBe(told);
});
