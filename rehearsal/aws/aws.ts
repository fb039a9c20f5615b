/**
 * Stands in for AWS at the edge of the SDK: an HTTP server for AWS_ENDPOINT_URL that answers what the handlers ask of
 * Secrets Manager, CloudWatch, RDS, SNS, Step Functions and Scheduler. JSON 1.0/1.1 (`X-Amz-Target`); for RDS and SNS the
 * query protocol, for Scheduler REST.
 * https://smithy.io/2.0/aws/protocols/index.html
 */
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { gunzipSync } from 'node:zlib';
import { answerQuery } from './aws-query.ts';
import { AwsError, type World } from './aws-world.ts';

/** A value that a handler published. */
export interface PublishedMetric {
  readonly name: string;
  readonly value: number;
  readonly dimensions: Readonly<Record<string, string>>;
}

interface Input {
  readonly SecretId?: string;
  readonly VersionStage?: string;
  readonly AlarmNames?: readonly string[];
  readonly DashboardName?: string;
  readonly executionArn?: string;
  readonly stateMachineArn?: string;
  readonly name?: string;
  readonly input?: string;
  readonly cause?: string;
  readonly taskToken?: string;
  readonly output?: string;
  readonly MetricData?: readonly {
    readonly MetricName: string;
    readonly Value?: number;
    readonly Dimensions?: readonly { readonly Name: string; readonly Value: string }[];
  }[];
  readonly MetricDataQueries?: readonly {
    readonly Id: string;
    readonly MetricStat?: { readonly Metric: { readonly MetricName: string }; readonly Period: number };
  }[];
  readonly StartTime?: number;
  readonly EndTime?: number;
}

/** An execution that a handler started or stopped. */
export interface RequestedExecution {
  readonly input?: unknown;
  status: 'RUNNING' | 'SUCCEEDED' | 'FAILED' | 'ABORTED';
  readonly cause?: string | undefined;
}

export class AwsStandIn {
  readonly world: World;
  readonly metrics: PublishedMetric[] = [];
  /** To topics. */
  readonly published: { readonly topic: string; readonly message: string }[] = [];
  /** By ARN: what handlers asked to start or to stop. They are noted, not carried out. */
  readonly executions = new Map<string, RequestedExecution>();
  /** By `<group>/<name>`: what CreateSchedule was asked. They are noted, and never run. */
  readonly schedules = new Map<string, Record<string, unknown>>();
  /** For AWS_ENDPOINT_URL. */
  readonly url: string;
  private readonly server: Server;

  private constructor(world: World, server: Server) {
    this.world = world;
    this.server = server;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on('request', async (request, response) => {
      const { status, type, body } = await this.answer(request);
      response.writeHead(status, { 'content-type': type }).end(body);
    });
  }

  /** Listens on a free port of the loopback interface. */
  static async start(world: World): Promise<AwsStandIn> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(0, '127.0.0.1', resolve);
    });
    return new AwsStandIn(world, server);
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private async answer(request: IncomingMessage): Promise<{ status: number; type: string; body: string }> {
    const json = 'application/x-amz-json-1.0';
    try {
      const received = await buffer(request);
      const text = (
        request.headers['content-encoding'] === 'gzip' ? gunzipSync(received) : received
      ).toString();
      const target = request.headers['x-amz-target'];
      if (typeof target === 'string') {
        const operation = target.split('.').at(-1) ?? '';
        return {
          status: 200,
          type: json,
          body: JSON.stringify(await this.json(operation, JSON.parse(text))),
        };
      }
      const { pathname, searchParams } = new URL(request.url ?? '/', this.url);
      const schedule = /^\/schedules\/([^/]+)$/.exec(pathname)?.[1];
      if (schedule !== undefined) {
        const asked = request.method === 'POST' ? JSON.parse(text) : undefined;
        const group = asked?.GroupName ?? searchParams.get('groupName') ?? 'default';
        return {
          status: 200,
          type: json,
          body: JSON.stringify(await this.schedule(`${group}/${schedule}`, asked)),
        };
      }
      const action = new URLSearchParams(text).get('Action') ?? '';
      return { status: 200, type: 'text/xml', body: await this.query(action, new URLSearchParams(text)) };
    } catch (error) {
      const { name, message } = error as Error;
      const isQuery = String(request.headers['content-type']).startsWith('application/x-www-form-urlencoded');
      return isQuery
        ? {
            status: 400,
            type: 'text/xml',
            body: `<ErrorResponse><Error><Type>Sender</Type><Code>${name}</Code><Message>${message}</Message></Error></ErrorResponse>`,
          }
        : { status: 400, type: json, body: JSON.stringify({ __type: name, message }) };
    }
  }

  private async json(operation: string, input: Input): Promise<unknown> {
    await this.world.disturb?.(operation);
    switch (operation) {
      case 'GetSecretValue': {
        const { secrets, pendingSecrets } = this.world;
        const value = (input.VersionStage === 'AWSPENDING' ? pendingSecrets : secrets)?.get(
          input.SecretId ?? '',
        );
        if (value === undefined) {
          throw new AwsError('ResourceNotFoundException', "Secrets Manager can't find the specified secret.");
        }
        return { ARN: input.SecretId, Name: input.SecretId, SecretString: JSON.stringify(value) };
      }
      case 'PutMetricData':
        for (const { MetricName, Value, Dimensions = [] } of input.MetricData ?? []) {
          const dimensions = Object.fromEntries(Dimensions.map(({ Name, Value }) => [Name, Value]));
          this.metrics.push({ name: MetricName, value: Value ?? 0, dimensions });
        }
        return {};
      case 'GetMetricData':
        return {
          Messages: [],
          MetricDataResults: input.MetricDataQueries?.map((query) => this.readings(query, input)),
        };
      case 'DescribeAlarms':
        return {
          CompositeAlarms: [],
          MetricAlarms: [...this.world.alarms]
            .filter(([name]) => !input.AlarmNames || input.AlarmNames.includes(name))
            .map(([AlarmName, StateValue]) => ({
              AlarmName,
              StateValue,
              ActionsEnabled: !this.world.mutedAlarms?.has(AlarmName),
            })),
        };
      case 'GetDashboard':
        if (!this.world.dashboards.has(input.DashboardName ?? '')) {
          throw new AwsError('ResourceNotFound', `Dashboard ${input.DashboardName} does not exist`);
        }
        return { DashboardName: input.DashboardName, DashboardBody: '{}' };
      case 'StartExecution': {
        const arn = `${input.stateMachineArn?.replace(':stateMachine:', ':execution:')}:${input.name}`;
        if (this.executions.has(arn)) {
          throw new AwsError('ExecutionAlreadyExists', `Execution Already Exists: '${arn}'`);
        }
        const started: RequestedExecution = { input: JSON.parse(input.input ?? '{}'), status: 'RUNNING' };
        this.executions.set(arn, started);
        this.world.startExecution?.(arn, started.input);
        return { executionArn: arn, startDate: 0 };
      }
      case 'StopExecution':
        this.executions.set(input.executionArn ?? '', { status: 'ABORTED', cause: input.cause });
        return { stopDate: 0 };
      case 'SendTaskSuccess':
        if (!this.world.succeedTask?.(input.taskToken ?? '', JSON.parse(input.output ?? 'null')))
          throw new AwsError('TaskTimedOut', `Task Timed Out: '${input.taskToken}'`);
        return {};
      case 'DescribeExecution': {
        const arn = input.executionArn ?? '';
        const [, , , , , , machine, name] = arn.split(':');
        const { status: known, cause } = this.executions.get(arn) ?? {};
        return {
          cause,
          executionArn: arn,
          name,
          stateMachineArn: arn.replace(':execution:', ':stateMachine:').replace(/:[^:]*$/, ''),
          stateMachine: machine,
          startDate: 0,
          status: known ?? ((await this.world.isRunning(arn)) ? 'RUNNING' : 'ABORTED'),
        };
      }
      default:
        throw new AwsError('UnknownOperationException', `the rehearsal has no answer to ${operation}`);
    }
  }

  /** CreateSchedule, or DeleteSchedule when nothing is asked. */
  private async schedule(name: string, asked: Record<string, unknown> | undefined): Promise<unknown> {
    await this.world.disturb?.(asked === undefined ? 'DeleteSchedule' : 'CreateSchedule');
    if (asked === undefined) {
      if (!this.schedules.delete(name))
        throw new AwsError('ResourceNotFoundException', `Schedule ${name} does not exist.`);
      return {};
    }
    if (this.schedules.has(name)) throw new AwsError('ConflictException', `Schedule ${name} already exists.`);
    this.schedules.set(name, asked);
    return { ScheduleArn: `arn:aws:scheduler:us-east-1:123456789012:schedule/${name}` };
  }

  /** One reading a minute, newest first. */
  private readings(
    query: NonNullable<Input['MetricDataQueries']>[number],
    { StartTime = 0, EndTime = 0 }: Input,
  ) {
    const period = query.MetricStat?.Period ?? 60;
    const value = this.reading(query.MetricStat?.Metric.MetricName);
    const since = EndTime - (this.world.silentMinutes ?? 0) * 60;
    const count = value === null ? 0 : Math.max(0, Math.floor((since - StartTime) / period));
    return {
      Id: query.Id,
      StatusCode: 'Complete',
      Timestamps: Array.from({ length: count }, (_, index) => Math.floor(since) - (index + 1) * period),
      Values: Array.from({ length: count }, () => value),
    };
  }

  private reading(metric: string | undefined): number | null {
    const { cpuPercent, freeStorageBytes = 100 * 2 ** 30, replicaLag = 0 } = this.world;
    switch (metric) {
      case 'CPUUtilization':
        return cpuPercent;
      case 'FreeStorageSpace':
        return freeStorageBytes;
      case 'ReplicaLag':
      case 'AuroraReplicaLagMaximum':
        return replicaLag;
      default:
        return null;
    }
  }

  private async query(action: string, input: URLSearchParams): Promise<string> {
    await this.world.disturb?.(action);
    if (action === 'Publish') {
      this.published.push({ topic: input.get('TopicArn') ?? '', message: input.get('Message') ?? '' });
      return '<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>';
    }
    return answerQuery(action, input, this.world);
  }
}
