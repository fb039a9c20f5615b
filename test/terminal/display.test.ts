import { PassThrough } from 'node:stream';
import { stripVTControlCharacters } from 'node:util';
import { describe, expect, test } from 'vitest';
import { Display } from '../../terminal/display.ts';

test('names that are longer than their column are told to the end, and broken between their parts', () => {
  const out = new PassThrough();
  const expected = 'attested: input.attestations.incidentResponseReviewed = name of the person';
  const measured = 'EncryptionRollout-KeyAccessFailures';
  new Display(out as unknown as NodeJS.WriteStream).criteria([
    { name: 'Reviewed', expected, measured, passed: false },
  ]);
  const shown = stripVTControlCharacters(String(out.read()));
  const column = (from: number, to?: number) =>
    shown
      .split('\n')
      .slice(1)
      .map((line) => line.slice(from, to))
      .join('')
      .replaceAll(/\s/g, '');
  expect(shown).not.toContain('…');
  expect(column(37, 73)).toBe(expected.replaceAll(' ', ''));
  expect(column(73)).toBe(measured);
  expect(shown).toContain(' incidentResponseReviewed ');
  expect(shown).toContain(' KeyAccessFailures');
});

test('criteria of several tables stand under their names', () => {
  const out = new PassThrough();
  const criterion = { name: 'Missing IVs', expected: '0', measured: '0', passed: true };
  new Display(out as unknown as NodeJS.WriteStream).criteria([
    { ...criterion, table: 'public.users' },
    { ...criterion, table: 'billing.invoices' },
    { ...criterion, name: 'Database CPU' },
  ]);
  const shown = stripVTControlCharacters(String(out.read()));
  expect(shown.split('\n').map((line) => line.trim().replaceAll(/\s+/g, ' '))).toEqual([
    'Criterion Expected Measured',
    'public.users',
    '✓ Missing IVs 0 0',
    'billing.invoices',
    '✓ Missing IVs 0 0',
    'All together',
    '✓ Database CPU 0 0',
    '',
  ]);
});

describe('a gate', () => {
  const judgement = {
    gate: 'Phase 2 Expanded Batch: Gate',
    verdict: 'NO_GO',
    reason: '',
    criteria: [
      { name: 'Missing IVs', expected: '0', measured: '0', passed: true },
      {
        name: 'Rows verified outside the database',
        expected: 'every row, each equal to its plaintext, as the key from Secrets Manager opens it',
        measured: '9,608 verified, 3 mismatched, whose keys are in the records of the run',
        passed: false,
      },
    ],
  } as const;
  const shown = (verbose: boolean, columns: number | undefined) => {
    let text = '';
    const out = { isTTY: columns !== undefined, columns, write: (part: string) => (text += part) };
    new Display(out as unknown as NodeJS.WriteStream, verbose).judgement(judgement, 0);
    return stripVTControlCharacters(text);
  };

  test('is one line, and what did not pass; every criterion when that is wanted', () => {
    const brief = shown(false, undefined);
    expect(brief).toMatch(/^Phase 2 Expanded Batch: Gate {2}NO_GO {2}1 of 2 passed · day 1 00:00\n/);
    expect(brief).not.toContain('Missing IVs');
    expect(brief).toMatch(/✗ {2}Rows verified outside/);
    expect(shown(true, undefined)).toContain('Missing IVs');
  });

  test.each([80, 120])('fits a window of %d columns', (columns) => {
    const lines = shown(true, columns).split('\n');
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(columns);
  });
});
