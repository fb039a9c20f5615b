import { PassThrough } from 'node:stream';
import { stripVTControlCharacters } from 'node:util';
import { expect, test } from 'vitest';
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
