/** What the functions call from inside the network, by what they import. */
import { readFileSync } from 'node:fs';
import { buildSync } from 'esbuild';
import { expect, test } from 'vitest';
import { functionsInVpc } from '../../../infra/functions/functions.ts';
import { sourceOf } from '../../../infra/functions/handler-files.ts';
import { endpointServices } from '../../../infra/surroundings/endpoints.ts';

/** Package of the SDK → the service's name in an endpoint. Null: nothing is called. */
const serviceOf: Record<string, string | null> = {
  '@aws-sdk/client-cloudwatch': 'monitoring',
  '@aws-sdk/client-rds': 'rds',
  '@aws-sdk/client-scheduler': 'scheduler',
  '@aws-sdk/client-secrets-manager': 'secretsmanager',
  '@aws-sdk/client-sfn': 'states',
  // Signs with the credentials that the function has.
  '@aws-sdk/rds-signer': null,
};

test('every service that a function calls has an endpoint, and none has one that nobody calls', () => {
  const { metafile } = buildSync({
    entryPoints: functionsInVpc.map((name) => sourceOf(name)),
    bundle: true,
    write: false,
    metafile: true,
    platform: 'node',
    format: 'esm',
    packages: 'external',
    outdir: 'unwritten',
    logLevel: 'error',
  });
  const imported = Object.values(metafile.outputs).flatMap(({ imports }) => imports.map(({ path }) => path));
  const packages = [...new Set(imported.filter((path) => path.startsWith('@aws-sdk/')))].sort();
  expect(packages).toEqual(Object.keys(serviceOf));
  expect(new Set(Object.values(serviceOf))).toEqual(new Set([...endpointServices, null]));
  const documented = readFileSync('docs/deploy.md', 'utf8');
  for (const service of endpointServices) expect(documented).toContain(`.${service}\``);
});
