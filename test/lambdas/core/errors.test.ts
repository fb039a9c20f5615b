import { describe, expect, test } from 'vitest';
import { explainReason, TransientError } from '../../../lambdas/core/errors.ts';

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

  test('a cause that is no JSON is told as it is', () => {
    expect(explainReason({ Error: 'States.Timeout', Cause: '' })).toBe('States.Timeout: no cause given');
    expect(explainReason({ Error: 'States.Runtime', Cause: 'no path' })).toBe('States.Runtime: no path');
  });
});

test('an error carries the name that Step Functions matches', () => {
  expect(new TransientError('x').name).toBe('TransientError');
});
