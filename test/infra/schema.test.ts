import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { configurationSchema, parseConfig } from '../../infra/config.ts';

const file = fileURLToPath(new URL('../../config/schema.json', import.meta.url));

test('config/schema.json is what configurations are validated by (WRITE_SCHEMA=1 writes it)', () => {
  const text = `${JSON.stringify(configurationSchema(), null, 1)}\n`;
  if (process.env.WRITE_SCHEMA) writeFileSync(file, text);
  expect(readFileSync(file, 'utf8')).toBe(text);
});

test('an editor is told of it by a setting that means nothing else', () => {
  const right = JSON.parse(readFileSync(new URL('../../config/example.json', import.meta.url), 'utf8'));
  expect(right.$schema).toBe('./schema.json');
  expect(parseConfig(right, 'example')).not.toHaveProperty('$schema');
});
