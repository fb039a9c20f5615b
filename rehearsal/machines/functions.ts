/**
 * Runs the synthesized Lambda functions from their bundles, each invocation with the environment variables and the timeout that
 * it has on AWS, in worker threads that stay warm: as many as were ever needed at once.
 */
import { createWriteStream, type WriteStream } from 'node:fs';
import { Worker } from 'node:worker_threads';

/** What the rehearsal needs to know of a synthesized function. */
export interface FunctionDefinition {
  /** State and file name, e.g. `EncryptBatch`. */
  readonly name: string;
  /** Absolute path of the bundled module. */
  readonly bundle: string;
  /** The export that is called. */
  readonly exported: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly timeoutSeconds: number;
}

/** A failed invocation as Step Functions sees it: `name` is the error, `message` the cause. */
export class InvocationError extends Error {
  constructor(name: string, cause: string) {
    super(cause);
    this.name = name;
  }
}

/** What a worker is told. */
export interface Call extends Omit<FunctionDefinition, 'timeoutSeconds'> {
  readonly event: unknown;
  /** In milliseconds since 1970. */
  readonly deadline: number;
}

interface Failure {
  readonly errorType: string;
  readonly errorMessage: string;
  readonly trace?: readonly string[];
}

interface Invocation {
  resolve(result: unknown): void;
  reject(error: Error): void;
  readonly timer: NodeJS.Timeout;
}

/**
 * One warm environment: at most one invocation at a time, of whichever function. On AWS each has environments of its own; here
 * they would be thirty threads that each load the same modules, which the bundles share in one directory.
 */
class Environment {
  private readonly worker: Worker;
  private current: Invocation | undefined;
  usable = true;

  constructor(log: WriteStream) {
    this.worker = new Worker(new URL('./function-worker.ts', import.meta.url), {
      env: {},
      // Not this process's loaders: they would transform every bundle once more.
      execArgv: [],
      stdout: true,
      stderr: true,
    });
    this.worker.stdout.pipe(log, { end: false });
    this.worker.stderr.pipe(log, { end: false });
    this.worker.on('message', ({ result, error }: { result?: string; error?: Failure }) => {
      if (error) this.settle((invocation) => invocation.reject(failed(error)));
      else this.settle((invocation) => invocation.resolve(JSON.parse(result ?? 'null')));
    });
    this.worker.on('error', (error) =>
      this.end('Runtime.ExitError', `the function crashed: ${error.message}`),
    );
    this.worker.on('exit', (code) => this.end('Runtime.ExitError', `the function exited with code ${code}`));
  }

  get idle(): boolean {
    return this.usable && !this.current;
  }

  invoke(called: FunctionDefinition, event: unknown): Promise<unknown> {
    const { timeoutSeconds: seconds, ...definition } = called;
    return new Promise((resolve, reject) => {
      // Lambda, too, stops the sandbox and leaves its connections to the database as they are.
      const timer = setTimeout(
        () => this.end('Sandbox.Timedout', `Error: Task timed out after ${seconds.toFixed(2)} seconds`),
        seconds * 1000,
      );
      this.current = { resolve, reject, timer };
      this.worker.postMessage({ ...definition, event, deadline: Date.now() + seconds * 1000 } satisfies Call);
    });
  }

  async stop(): Promise<void> {
    this.usable = false;
    await this.worker.terminate();
  }

  private settle(outcome: (invocation: Invocation) => void): void {
    const invocation = this.current;
    if (!invocation) return;
    this.current = undefined;
    clearTimeout(invocation.timer);
    outcome(invocation);
  }

  private end(errorType: string, errorMessage: string): void {
    this.usable = false;
    this.settle((invocation) => invocation.reject(failed({ errorType, errorMessage })));
    void this.worker.terminate();
  }
}

function failed(failure: Failure): InvocationError {
  return new InvocationError(failure.errorType, JSON.stringify(failure));
}

export class Functions {
  private readonly definitions: ReadonlyMap<string, FunctionDefinition>;
  private environments: Environment[] = [];
  private readonly log: WriteStream;

  /**
   * @param added environment variables on top of every function's own: endpoint, region and credentials of the stand-in.
   * @param logFile receives what the functions print, as CloudWatch Logs would.
   */
  constructor(
    definitions: readonly FunctionDefinition[],
    added: Readonly<Record<string, string>>,
    logFile: string,
  ) {
    this.definitions = new Map(
      definitions.map((each) => [each.name, { ...each, environment: { ...each.environment, ...added } }]),
    );
    this.log = createWriteStream(logFile, { flags: 'a', mode: 0o600 });
    // Two streams of an environment flow into it.
    this.log.setMaxListeners(0);
  }

  /** Invokes a function and returns what it returned. @throws InvocationError with Lambda's error names and causes. */
  async invoke(name: string, event: unknown): Promise<unknown> {
    const definition = this.definitions.get(name);
    if (!definition) {
      throw failed({ errorType: 'Lambda.ResourceNotFoundException', errorMessage: `no function ${name}` });
    }
    this.environments = this.environments.filter(({ usable }) => usable);
    let environment = this.environments.find(({ idle }) => idle);
    if (environment === undefined) {
      environment = new Environment(this.log);
      this.environments.push(environment);
    }
    return environment.invoke(definition, event);
  }

  /** Ends every environment, whatever it is doing. */
  async stop(): Promise<void> {
    await Promise.all(this.environments.map((environment) => environment.stop()));
    this.environments = [];
    await new Promise<void>((resolve) => this.log.end(resolve));
  }
}
