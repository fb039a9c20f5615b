import { describe, expect, test } from 'vitest';
import {
  type Evidence,
  stopMessage,
  type TableEvidence,
} from '../../../../lambdas/core/stopping/stop-message.ts';
import { calm, healthy } from '../healthy.ts';

const { health } = healthy(24.5);
const table = (name: string, more: Partial<TableEvidence> = {}): TableEvidence => ({
  name,
  purpose: 'encrypt',
  health,
  errors: {},
  ...more,
});
const message = (tables: TableEvidence[], more: Partial<Evidence> = {}) =>
  stopMessage({
    tables,
    runId: 'run-1',
    why: 'Phase 2 Expanded Batch: Gate: public.users: Missing IVs: expected 0, measured 3',
    proof: { plaintextRows: 20_000, ciphertextOnlyRows: 0 },
    vitals: calm,
    gates: [],
    queries: [],
    prepared: [],
    commandLine: (words) => `npm run rollout -- ${words}`,
    runbook: (anchor) => `docs/runbook.md#${anchor}`,
    ...more,
  }).split('\n');

test('a prepared transaction is told with the words that end it', () => {
  const prepared = [{ gid: "o'brien", preparedAt: '2026-11-28 03:04', owner: 'shop' }];
  expect(message([table('public.appointments')], { prepared }).at(-1)).toBe(
    "- prepared transaction o'brien, prepared at 2026-11-28 03:04 UTC by shop: whoever manages it commits it, or: rollback prepared 'o''brien';",
  );
});

describe('the page of a stop', () => {
  test('of one table says in three lines what happened, how it is now and what is next', () => {
    const [first, second, third] = message([table('public.appointments')]);
    expect(first).toMatch(
      /^The encryption rollout of public\.appointments has stopped\. Phase 2 .* measured 3\.$/,
    );
    expect(second).toBe(
      'Now: trigger disabled, 2,450 of 10,000 rows encrypted, all plaintext in place (20,000 rows read).',
    );
    expect(third).toMatch(/^Next: find the cause .* it resumes run run-1\.$/);
  });

  test('of two tables tells the state, and the errors, of each', () => {
    const lines = message([
      table('public.appointments', {
        purpose: 'verify',
        health: { ...health, triggerEnabled: true, encryptedRows: 10_000 },
      }),
      table('public.users', {
        health: { ...health, triggerEnabled: true },
        errors: { encryption: 1_200, trigger: 1 },
      }),
    ]);
    expect(lines[0]).toMatch(
      /^The encryption rollout of public\.appointments and public\.users has stopped\. /,
    );
    expect(lines.slice(1, 4)).toEqual([
      'Now: all plaintext in place (20,000 rows read);',
      '- public.appointments: trigger enabled, and left so because it was when this rollout of a complete table began, 10,000 of 10,000 rows encrypted.',
      '- public.users: trigger STILL ENABLED, 2,450 of 10,000 rows encrypted.',
    ]);
    expect(lines[4]).toMatch(/^Next: /);
    expect(lines).toContain('Errors in this attempt, public.appointments: none.');
    expect(lines).toContain('Errors in this attempt, public.users: 1,200 encryption, 1 trigger.');
  });

  test('does not hide that the plaintext was not proven, or is not there', () => {
    const both = [table('public.appointments'), table('public.users')];
    expect(message(both, { proof: undefined })[1]).toBe(
      'Now: plaintext NOT PROVEN readable (ProvePlaintext gave no result);',
    );
    expect(message(both, { proof: { plaintextRows: 1, ciphertextOnlyRows: 2 } })[1]).toContain(
      '2 rows HOLD CIPHERTEXT WITHOUT PLAINTEXT',
    );
  });
});
