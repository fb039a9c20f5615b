import { expect, test } from 'vitest';
import { glued } from './glued.ts';

test.each([
  'do not send the secret..',
  'expected to be text., measured xml',
  'expected The key, measured none',
  'none , since there are none',
  'rows of of the table',
])('a seam is found: %s', (line) => {
  expect(glued(`a line. Another: one; 1,000.5 of (a, b).\n${line}\nE.g. pg_drop_slot('<name>'); …`)).toEqual([
    line,
  ]);
});
