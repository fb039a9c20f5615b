/**
 * Runs the synthesized Lambda functions from their bundles, each in a worker thread of its own that stays warm between
 * invocations, with the environment and the timeout that it has on AWS.
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

/** One warm environment of one function: at most one invocation at a time. */
class Environment {
  private readonly worker: Worker;
  private readonly definition: FunctionDefinition;
  private current: Invocation | undefined;
  usable = true;

  constructor(definition: FunctionDefinition, added: Readonly<Record<string, string>>, log: WriteStream) {
    this.definition = definition;
    const { name, bundle, exported } = definition;
    this.worker = new Worker(new URL('./function-worker.ts', import.meta.url), {
      workerData: { bundle, exported, functionName: name },
      env: { ...definition.environment, ...added },
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

  invoke(event: unknown): Promise<unknown> {
    const seconds = this.definition.timeoutSeconds;
    return new Promise((resolve, reject) => {
      // Lambda, too, stops the sandbox and leaves its connections to the database as they are.
      const timer = setTimeout(
        () => this.end('Sandbox.Timedout', `Error: Task timed out after ${seconds.toFixed(2)} seconds`),
        seconds * 1000,
      );
      this.current = { resolve, reject, timer };
      this.worker.postMessage({ event, deadline: Date.now() + seconds * 1000 });
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
  /** Of each function as many as were ever needed at once. */
  private readonly environments = new Map<string, Environment[]>();
  private readonly added: Readonly<Record<string, string>>;
  private readonly log: WriteStream;

  /**
   * @param added environment on top of every function's own: endpoint, region and credentials of the stand-in.
   * @param logFile receives what the functions print, as CloudWatch Logs would.
   */
  constructor(
    definitions: readonly FunctionDefinition[],
    added: Readonly<Record<string, string>>,
    logFile: string,
  ) {
    this.definitions = new Map(definitions.map((definition) => [definition.name, definition]));
    this.added = added;
    this.log = createWriteStream(logFile, { flags: 'a', mode: 0o600 });
    // Two streams a function flow into it.
    this.log.setMaxListeners(0);
  }

  /** Invokes a function and returns what it returned. @throws InvocationError with Lambda's error names and causes. */
  async invoke(name: string, event: unknown): Promise<unknown> {
    const definition = this.definitions.get(name);
    if (!definition) {
      throw failed({ errorType: 'Lambda.ResourceNotFoundException', errorMessage: `no function ${name}` });
    }
    const usable = (this.environments.get(name) ?? []).filter((environment) => environment.usable);
    let environment = usable.find(({ idle }) => idle);
    if (environment === undefined) {
      environment = new Environment(definition, this.added, this.log);
      usable.push(environment);
    }
    this.environments.set(name, usable);
    return environment.invoke(event);
  }

  /** Ends every environment, whatever it is doing. */
  async stop(): Promise<void> {
    await Promise.all([...this.environments.values()].flat().map((environment) => environment.stop()));
    this.environments.clear();
    await new Promise<void>((resolve) => this.log.end(resolve));
  }
}
