import { beforeEach, describe, expect, test } from 'vitest';
import { anotherRun, failure, rollOut, run } from '../machines.ts';

beforeEach(anotherRun);

describe('clearing', () => {
  const input = () => ({ run, confirm: run.id });
  const answers = (outcomes: string[]) => ({
    ClearCiphertext: ({ batch = 0 }) => ({
      outcome: outcomes[batch],
      batch: batch + 1,
      pauseSeconds: 10,
      summary: `after ${batch + 1}`,
    }),
  });

  test.each(['DONE', 'CONTINUE'])('goes batch by batch with a pause, and tells of %s', async (last) => {
    const { ending, calls, notes, waited } = await rollOut(
      answers(['MORE', 'MORE', last]),
      'ClearCiphertext',
      input(),
    );
    expect(ending).toMatchObject({ status: 'SUCCEEDED', output: { outcome: last } });
    expect(calls).toHaveLength(3);
    expect(waited).toBe(20);
    expect(notes).toEqual(['Encryption rollout: ciphertext cleared: after 3']);
  });

  test('that is refused or fails ends FAILED, and says so', async () => {
    const { ending, notes } = await rollOut(
      { ClearCiphertext: failure('InvalidInput') },
      'ClearCiphertext',
      input(),
    );
    expect(ending).toMatchObject({ status: 'FAILED', error: 'ClearingFailed' });
    expect(notes).toEqual([
      expect.stringContaining(
        'clearing failed: Clearing the ciphertext stopped with InvalidInput: what InvalidInput says',
      ),
    ]);
  });

  test('of 10 million rows fits into a history', async () => {
    const { executions } = await rollOut(
      answers([...Array(1_999).fill('MORE'), 'CONTINUE']),
      'ClearCiphertext',
      input(),
    );
    expect(executions[0]?.events).toBeLessThan(25_000);
  });
});
