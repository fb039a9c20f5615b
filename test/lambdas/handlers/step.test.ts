import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import * as z from 'zod';
import { handlerOf } from '../../../lambdas/handlers/step.ts';

let said: string[];
beforeEach(() => {
  said = [];
  // Where a test can read it.
  vi.stubEnv('POWERTOOLS_DEV', 'true');
  vi.stubEnv('POWERTOOLS_LOG_LEVEL', 'INFO');
  for (const level of ['info', 'warn', 'error'] as const)
    vi.spyOn(console, level).mockImplementation((text) => void said.push(text));
});
afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
});

test('what made a handler fail stands in one line of the log, with its reason', async () => {
  vi.stubEnv('ROLLOUT_SETTINGS_FILE', '/nowhere/settings.json');
  const reason = 'Found no /nowhere/settings.json, expected the settings of the deployment. Deploy again.';
  const handler = handlerOf('Gate', z.unknown(), async () => ({}));
  await expect(handler({ executionArn: 'arn:one' })).rejects.toThrow(reason);
  expect(said.map((line) => JSON.parse(line))).toEqual([
    expect.objectContaining({
      level: 'ERROR',
      message: 'failed',
      state: 'Gate',
      execution: 'arn:one',
      reason: reason,
    }),
  ]);
});
