import { expect, test } from 'vitest';
import { sourceOf } from '../../../../infra/functions/handler-files.ts';

test('ExplainFailure explains without a database, and what no words came with', async () => {
  for (const name of ['DATABASE_SECRET_ARN', 'DATABASE_HOST', 'KEY_SECRET_ARN']) delete process.env[name];
  process.env.ROLLOUT_SETTINGS = JSON.stringify({ database: { instanceIdentifier: 'db' } });
  process.env.POWERTOOLS_LOG_LEVEL = 'SILENT';
  const { handler } = await import(sourceOf('ExplainFailure'));
  expect(await handler({ error: { Error: 'States.Timeout' } })).toEqual({
    Error: 'Timeout',
    Cause: expect.stringContaining('See its log'),
    reason: expect.stringMatching(/^Timeout: /),
  });
});
