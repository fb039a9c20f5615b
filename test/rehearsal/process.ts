/** The rehearsal as a user runs it: a process of its own, in a directory of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { PlanOverrides } from '../../lambdas/core/plan/plan-overrides.ts';
import { Target } from '../../lambdas/core/plan/settings.ts';
import { samples } from '../../rehearsal/database/samples.ts';
import type { Report } from '../../rehearsal/report.ts';
import { synthesize } from '../../rehearsal/synthesis.ts';
import { runs } from '../support/node.ts';
import { temporary } from '../support/server-directory.ts';

function node(script: string): string[] {
  return [process.execPath, ...runs(script)];
}

/** Where rehearsals run, with the app synthesized once for all of them. */
export class Bench {
  readonly directory = mkdtempSync(path.join(temporary(), 'rehearsal-test-'));
  private readonly environment: Record<string, string>;
  private readonly running = new Set<ChildProcess>();
  private reports = 0;

  /** `environment`: of the processes, besides that of the tests. */
  constructor(environment: Record<string, string> = {}) {
    this.environment = environment;
  }

  /**
   * @param plan what is changed of the plan, e.g. to look less often while a phase soaks
   * @param tables how many of the samples
   * @param approvals of phases
   */
  async prepare(plan?: PlanOverrides, tables = 1, approvals: readonly number[] = []): Promise<void> {
    // The embedded PostgreSQL may run as another user.
    chmodSync(this.directory, 0o755);
    // As the rehearsal has them, which takes what it finds synthesized only for the same tables.
    const targets = samples
      .slice(0, tables)
      .map(({ target }, index) => Target.parse(index === 0 ? { ...target, priority: 'is_vip' } : target));
    await synthesize(
      path.join(this.directory, 'assembly'),
      false,
      targets,
      plan === undefined ? { approvals } : { plan, approvals },
    );
  }

  /** Ends what still runs and removes the directory. */
  async clear(): Promise<void> {
    await Promise.all(
      [...this.running].map((child) => {
        child.kill('SIGKILL');
        return new Promise((resolve) => child.once('close', resolve));
      }),
    );
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** Starts `npm start -- <options>`. */
  start(...options: string[]): Rehearsal {
    const json = path.join(this.directory, `report-${++this.reports}.json`);
    const assembly = path.join(this.directory, 'assembly');
    return this.run('rehearsal/main.ts', ['--assembly', assembly, '--json', json, ...options], json);
  }

  /** Starts `npm run rollout -- <words>`. */
  rollout(...words: string[]): Rehearsal {
    return this.run('cli/main.ts', words);
  }

  /** The same in a terminal of its own, of this size: what is written to its stdin is typed there. */
  rolloutInTerminal(columns: number, rows: number, ...words: string[]): Rehearsal {
    const command = [...node('cli/main.ts'), ...words].map((word) => `'${word}'`).join(' ');
    const sized = `stty cols ${columns} rows ${rows} -echo; exec ${command}`;
    return this.watched(
      spawn('script', ['--quiet', '--flush', '--return', '--command', sized, '/dev/null'], {
        ...this.place(),
        stdio: 'pipe',
      }),
    );
  }

  private run(script: string, args: readonly string[], json = ''): Rehearsal {
    const [executable = '', ...rest] = [...node(script), ...args];
    return this.watched(
      spawn(executable, rest, { ...this.place(), stdio: ['ignore', 'pipe', 'pipe'] }),
      json,
    );
  }

  private place() {
    return { cwd: this.directory, env: { ...process.env, ...this.environment } };
  }

  private watched(child: ChildProcess, json = ''): Rehearsal {
    this.running.add(child);
    child.once('close', () => this.running.delete(child));
    return new Rehearsal(child, json);
  }
}

export class Rehearsal {
  readonly child: ChildProcess;
  /** Everything printed so far. */
  output = '';
  private readonly json: string;
  private readonly ended: Promise<number | null>;

  constructor(child: ChildProcess, json: string) {
    this.child = child;
    this.json = json;
    this.ended = new Promise((resolve) => child.once('close', resolve));
    const append = (chunk: Buffer) => {
      this.output += chunk.toString();
    };
    child.stdout?.on('data', append);
    child.stderr?.on('data', append);
  }

  /** Resolves when the text has been printed, with what was found of it. @throws when the process ends without */
  async until(text: string | RegExp): Promise<RegExpExecArray> {
    const wanted = typeof text === 'string' ? new RegExp(text.replaceAll(/[^\w\s]/g, '\\$&')) : text;
    for (;;) {
      const more = new Promise((resolve) => this.child.stdout?.once('data', resolve));
      const found = wanted.exec(this.output);
      if (found !== null) return found;
      if (
        (await Promise.race([more, this.ended.then(() => 'ended')])) === 'ended' &&
        !wanted.test(this.output)
      )
        throw new Error(`${wanted} was never printed:\n${this.output}`);
    }
  }

  /** The exit code; null when it was killed. */
  exit(): Promise<number | null> {
    return this.ended;
  }

  /** What was written to --json. */
  report(): Report {
    return JSON.parse(readFileSync(this.json, 'utf8'));
  }
}
