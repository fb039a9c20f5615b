import { execFile } from 'node:child_process';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readConfig } from '../../infra/config.ts';
import { endpointServices } from '../../infra/surroundings/endpoints.ts';
import { synthesizeRollout } from '../../infra/synthesis.ts';

const workflows = readdirSync('.github/workflows').map((file) => [
  file,
  readFileSync(join('.github/workflows', file), 'utf8'),
]);

test.each(workflows)(
  '%s: every action is pinned by its commit, with its version beside it',
  (_file, text) => {
    const uses = [...(text as string).matchAll(/uses: (.*)/g)].map(([, action]) => action);
    expect(uses.length).toBeGreaterThan(0);
    for (const action of uses) expect(action).toMatch(/^[\w.-]+\/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/);
  },
);

test.each(workflows)('%s: a fork, or text of a contributor, never gets into a command', (_file, text) => {
  expect(text).not.toMatch(/pull_request_target/);
  // Values come in through the environment, where the shell does not take them for code; a matrix is our own text.
  const commands = [...(text as string).matchAll(/run: (?:\|\n((?: {10,}.*\n|\n)+)|(.*))/g)].join('\n');
  expect(commands).not.toMatch(/\$\{\{ (?!matrix\.)/);
});

describe('deploy.yml', () => {
  const text = readFileSync('.github/workflows/deploy.yml', 'utf8');
  const [diff = '', deploy = ''] = text.split('\n  deploy:\n');

  test('deploys what CI has tested, on main alone', () => {
    expect(text).not.toMatch(/^ {2}push:/m);
    expect(text).toMatch(
      / {2}workflow_run:\n {4}workflows: \[CI\]\n {4}types: \[completed\]\n {4}branches: \[main\]\n/,
    );
    const ci = readFileSync('.github/workflows/ci.yml', 'utf8');
    expect(ci).toMatch(/^name: CI$/m);
    // What cancels the run of a push must be a later push, whose run is deployed in its place.
    expect(ci).toMatch(/^ {2}group: .*github\.event_name/m);
    expect(deploy).toContain("github.event.workflow_run.event == 'push'");
    expect(deploy).toContain("github.event.workflow_run.conclusion == 'success'");
    expect(deploy).toMatch(
      /actions\/checkout(?:.*\n){1,4} +ref: \$\{\{ github\.event\.workflow_run\.head_sha/,
    );
  });

  test('compares for a pull request without the role that deploys, or the one that publishes code', () => {
    expect(diff).toMatch(/cdk diff --method=template /);
    const [, role = ''] = /`AWS_DIFF_ROLE` \|(.*)/.exec(readFileSync('docs/deploy.md', 'utf8')) ?? [];
    expect(role.match(/cdk-\*-[\w-]+-role-\*/g)).toEqual(['cdk-*-lookup-role-*']);
  });
});

test('the guide to deployment names every endpoint that is created', () => {
  const guide = readFileSync('docs/deploy.md', 'utf8');
  for (const service of endpointServices) expect(guide).toContain(`.${service}\``);
});

test('delete-old-versions deletes what the stack no longer names, and nothing when it names none', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'aws-cli-'));
  const run = (current: string) =>
    new Promise<string>((resolve) => {
      const summaries = (type: string) => `*"AWS::Lambda::${type}'"*)`;
      writeFileSync(
        join(directory, 'aws'),
        [
          '#!/bin/sh',
          'case "$*" in',
          'stepfunctions*) ;;',
          `${summaries('Version')} printf '${current}\\n';;`,
          `${summaries('Function')} printf 'R-Gate\\tR-Monitor\\n';;`,
          '"lambda list-versions-by-function --function-name R-Gate "*) printf "arn:R-Gate:1\\tarn:R-Gate:2\\n";;',
          '"lambda list-versions-by-function"*) printf "arn:R-Monitor:12\\tarn:R-Monitor:1\\n";;',
          '"lambda delete-function --function-name "*) echo "$4";;',
          '*) exit 64;;',
          'esac',
        ].join('\n'),
        { mode: 0o755 },
      );
      execFile(
        'bash',
        ['.github/delete-old-versions', 'R'],
        { env: { ...process.env, PATH: [directory, process.env.PATH].join(delimiter) } },
        (_error, stdout) => resolve(stdout),
      );
    });
  expect(await run('arn:R-Gate:2\\tarn:R-Monitor:12')).toBe(
    'R is not deployed yet.\narn:R-Gate:1\narn:R-Monitor:1\n',
  );
  expect(await run('')).not.toContain('arn:');
});

describe('refuse-while-running', () => {
  const machines = ['EncryptionRollout', 'Rollback', 'ClearCiphertext'].map((name) => `Rollout-${name}`);

  /** Runs it with a stand-in for the AWS CLI that refuses every question but those for these machines and what runs of them. */
  function refuse(deployed: readonly string[], running?: string): Promise<{ code: number; output: string }> {
    const directory = mkdtempSync(join(tmpdir(), 'aws-cli-'));
    const cli = join(directory, 'aws');
    const query = machines.map((name) => `name=='${name}'`).join(' || ');
    const answers = [
      [
        `list-state-machines --output text --query stateMachines[?${query}].stateMachineArn`,
        deployed.map((name) => `arn:${name}`).join('\t'),
      ],
      ...deployed.map((name) => [
        `list-executions --state-machine-arn arn:${name} --status-filter RUNNING --query executions[].executionArn --output text`,
        name === running ? `arn:execution:${name}:one` : '',
      ]),
    ].map(([question, answer]) => `"stepfunctions ${question}") echo "${answer}";;`);
    writeFileSync(cli, ['#!/bin/sh', 'case "$*" in', ...answers, '*) exit 64;;', 'esac', ''].join('\n'));
    chmodSync(cli, 0o755);
    return new Promise((resolve) => {
      execFile(
        'bash',
        ['.github/refuse-while-running', 'Rollout'],
        { env: { ...process.env, PATH: [directory, process.env.PATH].join(delimiter) } },
        (error, stdout, stderr) => resolve({ code: Number(error?.code ?? 0), output: stdout + stderr }),
      );
    });
  }

  test('lets a first deployment through', async () => {
    expect(await refuse([])).toMatchObject({ code: 0 });
  });

  test('lets a deployment through when nothing runs', async () => {
    expect(await refuse(machines)).toEqual({ code: 0, output: '' });
  });

  test.each(machines)('refuses while an execution of %s runs, and names it', async (name) => {
    expect(await refuse(machines, name)).toEqual({
      code: 1,
      output: expect.stringContaining(`arn:execution:${name}:one`),
    });
  });

  test('its role may ask for them, and they are machines of the stack', () => {
    const [, role = ''] = /`AWS_DEPLOY_ROLE` \|(.*)/.exec(readFileSync('docs/deploy.md', 'utf8')) ?? [];
    const names = Object.keys(synthesizeRollout(readConfig('config/example.json')).machines);
    for (const machine of machines) {
      expect(role).toContain(`\`${machine.replace('Rollout-', '<stack>-')}\``);
      expect(names).toContain(machine.replace('Rollout-', ''));
    }
  });
});
