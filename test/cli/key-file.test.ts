import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createKeyFile, readKeyFile, replaceKeyFile } from '../../cli/key-file.ts';

const keys = (number: number) => ({ number, key: Buffer.alloc(32, number), previous: [] });

let directory: string;
let file: string;
beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'keys-'));
  file = path.join(directory, 'keys.json');
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

test('a file of that name is left alone', () => {
  createKeyFile(file, keys(1));
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(() => createKeyFile(file, keys(2))).toThrow('it may hold the only copy of a key');
  expect(readKeyFile(file).number).toBe(1);
});

test('what an interrupted call has left beside it is in nobody’s way', () => {
  createKeyFile(file, keys(1));
  writeFileSync(`${file}.new`, '{"number": 2, "ke');
  replaceKeyFile(file, keys(2));
  expect(readKeyFile(file).number).toBe(2);
  expect(existsSync(`${file}.new`)).toBe(false);
});
