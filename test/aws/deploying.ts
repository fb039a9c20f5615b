/** The commands that docs/deploy.md gives to a pipeline, on the stack as it is deployed. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { theWorld } from './world.ts';

const run = promisify(execFile);

/** The lines of the shell script under this heading, without their comments. */
function commandsOf(heading: string): string[] {
  const [, section = ''] = readFileSync('docs/deploy.md', 'utf8').split(`\n## ${heading}\n`);
  const [, script = ''] = /^```sh\n(.*?)^```/ms.exec(section) ?? [];
  return script
    .trim()
    .split('\n')
    .map((line) => line.replace(/\s+#.*/, ''));
}

export function deploying(): void {
  test('the commands for a pipeline find nothing to change in what was deployed', async () => {
    const [install, diff, refuse, deploy, ...others] = commandsOf('From another pipeline');
    // What has installed this, and a script with tests of its own that needs the AWS CLI.
    expect([install, refuse, others]).toEqual([
      'npm ci',
      'bash .github/refuse-while-running "$STACK_NAME"',
      [],
    ]);
    const env = { ...process.env, ROLLOUT_CONFIG: join(theWorld().directory, 'config.json') };
    const saidBy = async (command = '') => {
      const { stdout, stderr } = await run('bash', ['-c', command], { env, maxBuffer: 32 * 1024 * 1024 });
      return stdout + stderr;
    };
    expect(await saidBy(diff)).toContain('Number of stacks with differences: 0');
    expect(await saidBy(deploy)).toContain('(no changes)');
  });
}
