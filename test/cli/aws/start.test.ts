import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { inputOf } from '../../../cli/aws/start.ts';

describe('the input of start', () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'start-'));
  });
  afterAll(() => rm(directory, { recursive: true }));
  const options = { stack: 'Rollout' };
  const file = async (text: string) => {
    const path = join(directory, 'input.json');
    await writeFile(path, text);
    return path;
  };

  test('is the file, with the options added', async () => {
    const input = await file(
      '{"attestations": {"rollbackTested": "R. Roe"}, "acknowledgedTriggers": ["audit"]}',
    );
    expect(
      inputOf({
        ...options,
        input,
        dryRun: true,
        untilPhase: 2,
        table: ['public.users'],
        priority: 'is_vip',
        attest: { onCallEstablished: 'J. Doe' },
        acknowledgeTrigger: ['touch'],
      }),
    ).toEqual({
      attestations: { rollbackTested: 'R. Roe', onCallEstablished: 'J. Doe' },
      acknowledgedTriggers: ['audit', 'touch'],
      dryRun: true,
      untilPhase: 2,
      tables: ['public.users'],
      priority: 'is_vip',
    });
    expect(inputOf(options)).toEqual({});
    const attested = { ...options, input: 'test/support/attested-input.json' };
    expect(inputOf(attested)).toHaveProperty('attestations');
    // The sample is no attestation by anybody.
    expect(() => inputOf({ ...options, input: 'config/example-input.json' })).toThrow(
      /attestations\.stagingTestsPassed.*expected the name of the person who attests, in the sample's place/,
    );
  });

  test('tables take the place of those in the file, conditions by table add up', async () => {
    const given = {
      tables: ['public.orders'],
      priority: { 'public.orders': 'is_open', 'public.users': 'true' },
    };
    const input = await file(JSON.stringify(given));
    expect(
      inputOf({ ...options, input, table: ['public.users'], priority: { 'public.users': 'is_vip' } }),
    ).toEqual({
      tables: ['public.users'],
      priority: { 'public.orders': 'is_open', 'public.users': 'is_vip' },
    });
    expect(inputOf({ ...options, input, priority: 'is_vip' })).toMatchObject({ priority: 'is_vip' });
    const one = await file('{"priority": "is_vip"}');
    expect(inputOf({ ...options, input: one, priority: { 'public.users': 'is_vip' } })).toEqual({
      priority: { 'public.users': 'is_vip' },
    });
  });

  test.each([
    [{ untilPhase: 6 }, /untilPhase/],
    [{ untilPhase: Number.NaN }, /untilPhase/],
    [{ attest: { rollbackTestd: 'R. Roe' } }, /rollbackTestd.*expected one of stagingTestsPassed/],
    [{ attest: { rollbackTested: ' ' } }, /rollbackTested.*expected the name/],
    [{ priority: 'true; drop table x' }, /priority/],
    [{ priority: { 'public.users': 'true; drop table x' } }, /priority/],
    [{ input: '/nowhere.json' }, /no readable file \/nowhere.json, expected .*--input/],
  ])('%j is refused with the name of the field', (wrong, message) => {
    expect(() => inputOf({ ...options, ...wrong })).toThrow(message);
  });

  test.each([
    ['{"untilPhas": 2}', /untilPhas/],
    ['[]', /no JSON object/],
    ['{', /no JSON object/],
    ['{"attestations": "R. Roe"}', /attestations/],
    ['{"acknowledgedTriggers": "audit"}', /acknowledgedTriggers/],
  ])('a file with %s is refused', async (text, message) => {
    const input = await file(text);
    expect(() => inputOf({ ...options, input })).toThrow(message);
  });
});
