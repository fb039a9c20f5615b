import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Whose handlers read the SQL files. */
const withSql = ['PrepareDatabase', 'SeedDemo'];

/** `EncryptBatch` → `encrypt-batch`, the handler's file and the bundle's directory. */
export function fileOf(state: string): string {
  return state.replace(/(?<=[a-z])(?=[A-Z])/g, '-').toLowerCase();
}

/**
 * Bundles each state's handler into a directory of its own and passes the parent directory to `use`; afterwards it
 * is gone. One esbuild process for all of them: a process each, as NodejsFunction starts, costs seconds on every synth.
 */
export function withBundles<T>(states: readonly string[], use: (directory: string) => T): T {
  const directory = mkdtempSync(join(tmpdir(), 'encryption-rollout-bundles-'));
  try {
    buildSync({
      absWorkingDir: root,
      entryPoints: states.map((state) => ({
        in: `lambdas/${fileOf(state)}.ts`,
        out: `${fileOf(state)}/index`,
      })),
      outdir: directory,
      outExtension: { '.js': '.mjs' },
      bundle: true,
      platform: 'node',
      target: 'node24',
      format: 'esm',
      // The CommonJS packages inside call require for Node's own modules.
      banner: {
        js: "import { createRequire as createRequireOfBundle } from 'node:module'; const require = createRequireOfBundle(import.meta.url);",
      },
      // pg looks for its native client and lives without.
      external: ['pg-native'],
      // Smaller, but with every name intact: stack traces stay readable.
      minifySyntax: true,
      minifyWhitespace: true,
      // Errors are known by the names of their classes: one that another package has, too, would be renamed.
      keepNames: true,
      logLevel: 'error',
    });
    for (const state of states.filter((each) => withSql.includes(each)))
      cpSync(join(root, 'sql'), join(directory, fileOf(state), 'sql'), { recursive: true });
    return use(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
