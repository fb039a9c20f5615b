import { describe, expect, test } from 'vitest';
import { bounded, explained, explainReason, TransientError } from '../../../lambdas/core/errors.ts';

describe('explainReason', () => {
  test('a sentence is itself', () => {
    expect(explainReason('Phase 2: Gate: CPU')).toBe('Phase 2: Gate: CPU');
  });

  const handler = JSON.stringify({ errorType: 'RunSuperseded', errorMessage: 'taken over', trace: [] });

  test("a handler's error is its name and message", () => {
    expect(explainReason({ Error: 'RunSuperseded', Cause: handler })).toBe('RunSuperseded: taken over');
  });

  test("a child execution's failure is what lies innermost", () => {
    const child = JSON.stringify({
      ExecutionArn: 'arn',
      Status: 'FAILED',
      Error: 'RunSuperseded',
      Cause: handler,
    });
    expect(explainReason({ Error: 'States.TaskFailed', Cause: child })).toBe('RunSuperseded: taken over');
  });

  test('a child that somebody stopped, in the console without a word, is named', () => {
    const hold = { ExecutionArn: 'arn:hold', Input: '{"run":{}}', Name: 'hold', Status: 'ABORTED' };
    const batches = { ExecutionArn: 'arn:batches', Status: 'FAILED', Error: 'States.TaskFailed' };
    const reason = { Error: 'States.TaskFailed', Cause: JSON.stringify(hold) };
    expect(explainReason(reason)).toBe('The execution arn:hold ended as ABORTED');
    const outer = JSON.stringify({ ...batches, Cause: reason.Cause });
    expect(explainReason({ Error: 'States.TaskFailed', Cause: outer })).toBe(
      'The execution arn:hold ended as ABORTED',
    );
  });

  test('a breach is its sentence, however many executions deep, and whatever is in it', () => {
    const failed = (error: string, Cause: string) =>
      JSON.stringify({
        ExecutionArn: 'arn',
        Name: 'name',
        Input: '{"run":{"id":"x"}}',
        Error: error,
        Cause,
        Status: 'FAILED',
      });
    // Quotes are the worst, because each level escapes them anew; others have more bytes.
    for (const worst of ['"', '\\', '漢', '\u0001']) {
      const reason = bounded(`Phase 3: CheckVitals: ${worst.repeat(5_000)}`);
      const stretch = failed('Breach', reason);
      const phase = failed('PhaseStopped', stretch);
      const part = failed('PhaseStopped', phase);
      for (const cause of [stretch, phase, part]) {
        expect(explainReason({ Error: 'States.TaskFailed', Cause: cause })).toBe(reason);
        expect(Buffer.byteLength(cause)).toBeLessThan(32_768);
      }
    }
  });

  test('a cause that is no JSON is told as it is', () => {
    expect(explainReason({ Error: 'States.Timeout', Cause: '' })).toBe('States.Timeout: no cause given');
    expect(explainReason({ Error: 'States.Runtime', Cause: 'no path' })).toBe('States.Runtime: no path');
  });
});

test('an error carries the name that Step Functions matches', () => {
  expect(new TransientError('x').name).toBe('TransientError');
});

describe('explained', () => {
  test("a handler's error is its name and its message", () => {
    const Cause = JSON.stringify({ errorType: 'WrongKey', errorMessage: 'another key', trace: [] });
    expect(explained({ Error: 'WrongKey', Cause })).toEqual({
      Error: 'WrongKey',
      Cause: 'another key',
      reason: 'WrongKey: another key',
    });
  });

  test('no name is one that Step Functions keeps for itself, and no answer is told in words', () => {
    for (const Cause of ['', undefined])
      expect(explained({ Error: 'States.Timeout', Cause })).toMatchObject({
        Error: 'Timeout',
        reason: expect.stringMatching(/^Timeout: The last step gave no answer in time/),
      });
  });

  test('a long one is cut', () => {
    const { Cause, reason } = explained({ Error: 'DatabaseError', Cause: 'x'.repeat(50_000) });
    for (const text of [Cause, reason]) {
      expect(text).toHaveLength(2_000);
      expect(text).toMatch(/x …$/);
    }
  });
});
