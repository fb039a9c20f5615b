import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { takeWorkplace } from '../../rehearsal/workplace.ts';

const before = process.cwd();
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'workplace-'));
  process.chdir(directory);
});
afterEach(() => {
  process.chdir(before);
  rmSync(directory, { recursive: true, force: true });
});

test.each([
  ['one of the sample is resumed', true],
  ['one that was loaded begins anew', false],
])('however a rehearsal ends, %s', async (_, isResumable) => {
  const place = await takeWorkplace(500, true, isResumable);
  await place.prepare();
  // As when it was killed: nobody has cleaned up.
  expect(existsSync(path.join('.rehearsal', 'embedded'))).toBe(true);
  place.release(true);
  const next = await takeWorkplace(undefined, false, true);
  expect(next.note !== '').toBe(isResumable);
  expect(next.rows === 500).toBe(isResumable);
  next.release(false);
});
