/** `npm pack` runs it: bundles the command line, with what it reads, into dist/, so that the package depends on none. */
import { chmodSync, cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { build } from 'esbuild';
import { ownName, withOwnName } from './own-name.ts';

const here = import.meta.dirname;
const root = path.join(here, '..', '..');
const dist = path.join(here, 'dist');

rmSync(dist, { recursive: true, force: true });
const { metafile } = await build({
  entryPoints: [path.join(root, 'cli/main.ts')],
  outfile: path.join(dist, 'rollout.mjs'),
  plugins: [ownName],
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  mainFields: ['module', 'main'],
  // The CommonJS packages inside call require for Node's own modules.
  banner: {
    js: "#!/usr/bin/env node\nimport { createRequire as createRequireOfBundle } from 'node:module'; const require = createRequireOfBundle(import.meta.url);",
  },
  // pg looks for its native client and lives without.
  external: ['pg-native'],
  minifySyntax: true,
  minifyWhitespace: true,
  // Errors are known by the names of their classes.
  keepNames: true,
  legalComments: 'eof',
  logLevel: 'error',
  metafile: true,
});
chmodSync(path.join(dist, 'rollout.mjs'), 0o755);
for (const read of ['sql', 'config/schema.json', 'config/example-input.json', 'LICENSE'])
  cpSync(path.join(root, read), path.join(dist, read), { recursive: true });
mkdirSync(path.join(dist, 'docs'));
writeFileSync(
  path.join(dist, 'docs/runbook.md'),
  withOwnName(readFileSync(path.join(root, 'docs/runbook.md'), 'utf8')),
);

/** The licences of what is bundled ask to be passed on with it. */
const bundled = new Set(
  Object.keys(metafile.inputs).flatMap(
    (input) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(path.resolve(input))?.[0] ?? [],
  ),
);
const notices = [...bundled].sort().map((directory) => {
  const { name, version, license } = JSON.parse(readFileSync(path.join(directory, 'package.json'), 'utf8'));
  const texts = readdirSync(directory).filter((file) => /^(licen[cs]e|copying|notice)/i.test(file));
  return [
    `${name} ${version}: ${license}`,
    ...texts.map((file) => readFileSync(path.join(directory, file), 'utf8').trim()),
    // Some have theirs at the end of what they say of themselves.
    ...(texts.length === 0
      ? (/^## licen[cs]e\n[\s\S]*/im.exec(readFileSync(path.join(directory, 'README.md'), 'utf8')) ?? [])
      : []),
  ].join('\n\n');
});
writeFileSync(path.join(dist, 'THIRD-PARTY.txt'), `${notices.join(`\n\n${'-'.repeat(80)}\n\n`)}\n`);
