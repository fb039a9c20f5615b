import { stripVTControlCharacters } from 'node:util';
import { build } from 'esbuild';
import { expect, test } from 'vitest';
import { statusScreen } from '../../cli/aws/screen.ts';
import { ownName } from '../../cli/package/own-name.ts';
import { commandLine } from '../../lambdas/core/telling/hints.ts';
import { inWindow, isCopied } from '../../terminal/text.ts';
import { status } from '../cli/status.ts';

const place = {
  stack: 'EncryptionRollout',
  account: '123456789012',
  region: 'eu-west-1',
  commandLine: (words: string) => commandLine({ stack: 'EncryptionRollout' }, words),
};

test.each([80, 120])('at %d columns no line of a status is longer, but for what is copied', (columns) => {
  const gate = 'Phase 3 Bulk Migration: CheckVitals';
  const reason = `${gate}: Database CPU: expected not above 80 % in 3 consecutive readings, measured no reading; Free storage: expected at least 2 GiB, measured no reading`;
  const asked = {
    id: 'hold-7k2m9q',
    gate,
    reason,
    askedAt: '2026-11-23T11:00:00Z',
    expiresAt: '2026-11-24T00:00:00Z',
    numbers: [],
  };
  const text = statusScreen({ ...status, holds: [asked] }, place, new Date('2026-11-23T12:00:00Z'));
  const shown = inWindow(text, { isTTY: true, columns });
  const lines = stripVTControlCharacters(shown).split('\n');
  expect(lines.filter((line) => line.length > columns && !/arn:|npm run/.test(line))).toEqual([]);
  expect(lines).toContain('  npm run rollout -- decide hold-7k2m9q no-go');
  // A pipe gets lines as they are.
  expect(inWindow(text, { isTTY: false, columns })).toBe(text);
  expect(shown.replaceAll(/\s+/g, ' ')).toBe(text.replaceAll(/\s+/g, ' '));
});

test('an indented command is not broken, in the checkout nor in the package', async () => {
  const { outputFiles } = await build({
    entryPoints: ['terminal/text.ts'],
    plugins: [ownName],
    bundle: true,
    platform: 'node',
    format: 'esm',
    write: false,
  });
  const [{ text: bundled } = { text: '' }] = outputFiles;
  const packaged: { inWindow: typeof inWindow; isCopied: typeof isCopied } = await import(
    `data:text/javascript,${encodeURIComponent(bundled)}`
  );
  const long = `decide hold-7k2m9q go --reason ${'x'.repeat(90)} --stack EncryptionRollout`;
  for (const [text, command] of [
    [{ inWindow, isCopied }, `  npm run rollout -- ${long}`],
    [packaged, `  rollout ${long}`],
  ] as const) {
    expect(text.isCopied(command), command).toBe(true);
    expect(text.inWindow(command, { isTTY: true, columns: 80 })).toBe(command);
  }
});
