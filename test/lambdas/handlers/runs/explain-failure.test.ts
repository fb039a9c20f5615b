import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { sourceOf } from '../../../../infra/functions/handler-files.ts';

const directory = mkdtempSync(join(tmpdir(), 'rollout-settings-'));
afterAll(() => rmSync(directory, { recursive: true }));

test('ExplainFailure explains without a database, and what no words came with', async () => {
  for (const name of ['DATABASE_SECRET_ARN', 'DATABASE_HOST', 'KEY_SECRET_ARN']) delete process.env[name];
  process.env.ROLLOUT_SETTINGS_FILE = join(directory, 'settings.json');
  writeFileSync(
    process.env.ROLLOUT_SETTINGS_FILE,
    JSON.stringify({ version: '1.2.3', database: { instanceIdentifier: 'db' }, targets: [{}] }),
  );
  process.env.POWERTOOLS_LOG_LEVEL = 'SILENT';
  const { handler } = await import(sourceOf('ExplainFailure'));
  expect(await handler({ error: { Error: 'States.Timeout' } })).toEqual({
    Error: 'Timeout',
    Cause: expect.stringContaining('See its log'),
    reason: expect.stringMatching(/^Timeout: /),
  });
});
