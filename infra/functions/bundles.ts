import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Architecture, LoggingFormat, Runtime, Tracing } from 'aws-cdk-lib/aws-lambda';
import { buildSync, type OutputFile } from 'esbuild';
import { settingsFile } from '../../lambdas/core/plan/settings.ts';
import { fileOf, sourceOf } from './handler-files.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** How every function runs: the Node that the bundle is made for, JSON logs, traced. */
export const runtimeOfFunctions = {
  runtime: Runtime.NODEJS_24_X,
  architecture: Architecture.ARM_64,
  loggingFormat: LoggingFormat.JSON,
  tracing: Tracing.ACTIVE,
} as const;

/** Whose handlers read the SQL files. */
const withSql = ['PrepareDatabase', 'SeedDemo'];

/** By what they are made of. The sources stay as they are while an app is synthesized, and it may have several stacks. */
const bundled = new Map<string, readonly OutputFile[]>();

/** The handlers of these states in one directory's files. */
function bundle(states: readonly string[]): readonly OutputFile[] {
  const of = states.join();
  const files =
    bundled.get(of) ??
    buildSync({
      absWorkingDir: root,
      entryPoints: Object.fromEntries(states.map((state) => [fileOf(state), sourceOf(state)])),
      splitting: true,
      outdir: '.',
      write: false,
      outExtension: { '.js': '.mjs' },
      bundle: true,
      platform: 'node',
      target: 'node24',
      format: 'esm',
      // The SDK's ES modules come without the commands that nobody calls: a cold start takes a quarter less.
      mainFields: ['module', 'main'],
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
    }).outputFiles;
  bundled.set(of, files);
  return files;
}

/**
 * Bundles the handlers of these states into one directory, which it passes to `use`; afterwards it is gone. What they
 * share is in it once, so a deployment uploads it once, and each function loads only what its own handler imports.
 * @param settings what the handlers are told, in a file beside them: Lambda's environment has room for 4 KB; undefined = nothing
 */
export function withBundle<T>(
  states: readonly string[],
  settings: unknown,
  use: (directory: string) => T,
): T {
  const directory = mkdtempSync(join(tmpdir(), 'encryption-rollout-bundle-'));
  try {
    for (const { path, contents } of bundle(states)) writeFileSync(join(directory, basename(path)), contents);
    if (states.some((state) => withSql.includes(state)))
      cpSync(join(root, 'sql'), join(directory, 'sql'), { recursive: true });
    if (settings !== undefined) writeFileSync(join(directory, settingsFile), JSON.stringify(settings));
    return use(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
