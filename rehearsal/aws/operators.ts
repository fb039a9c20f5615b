/**
 * What the commands that operate a deployment ask of AWS, answered for the rehearsal under way: who they are, the stack, its
 * executions, and its function Operate. So they are practised as they are, with --rehearsal in place of --stack.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { userInfo } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { type RehearsalAddress, rehearsalFile } from '../../terminal/rehearsal-address.ts';
import { account, region } from '../machines/state-machines.ts';

/** The rehearsal, as far as people operate it. */
export interface Operated {
  /** Of what is rehearsed. */
  readonly version: string;
  /** Invokes the function Operate. @throws with Lambda's name and cause */
  operate(input: unknown): Promise<unknown>;
  /** ARNs of the executions of EncryptionRollout under way. */
  running(): readonly string[];
  /** When it began; undefined when there is no such execution. */
  startOf(execution: string): Date | undefined;
  stop(execution: string, cause: string): void;
}

const stateMachineArn = `arn:aws:states:${region}:${account}:stateMachine:EncryptionRollout`;
const operateFunction = 'Operate';
/** Where its Invoke goes: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html */
const operatePath = `/2015-03-31/functions/${operateFunction}/`;
const isLook = ({ url }: IncomingMessage) => url?.startsWith(operatePath) === true;

/** An answer of AWS's; an error has a name. */
interface Answer {
  readonly body: string;
  readonly error?: string;
}

/**
 * Listens on a free port of the loopback interface, and leaves its address, with what opens it, where the commands look for it: one
 * rehearsal at a time.
 * @returns what ends it
 */
export async function serveOperators(operated: Operated): Promise<() => Promise<void>> {
  const accessKey = randomBytes(16).toString('hex');
  const connections = new Set<Socket>();
  /** Connections of those who may be watching, and have not yet seen the end. */
  let watching: Set<Socket> | undefined;
  const server = createServer(async (request, response) => {
    const seesTheEnd = isLook(request) && watching?.has(request.socket);
    const authorized = request.headers.authorization?.includes(`Credential=${accessKey}/`) === true;
    const isQuery = String(request.headers['content-type']).startsWith('application/x-www-form-urlencoded');
    const { body, error } = authorized
      ? await answer(request, operated).catch((failure: Error) =>
          refused(isQuery, failure.name, failure.message),
        )
      : refused(isQuery, 'AccessDenied', 'the rehearsal is of another user');
    response
      .writeHead(error === undefined || error === 'Unhandled' ? 200 : 400, {
        'content-type': body.startsWith('<') ? 'text/xml' : 'application/x-amz-json-1.0',
        ...(error === 'Unhandled' ? { 'x-amz-function-error': error } : {}),
      })
      .end(body);
    if (seesTheEnd) seen(request.socket);
  });
  const seen = (connection: Socket) => {
    if (watching?.delete(connection) && watching.size === 0) server.emit('end seen');
  };
  server.on('connection', (connection) => {
    connections.add(connection);
    connection.once('close', () => {
      connections.delete(connection);
      seen(connection);
    });
  });
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  const address: RehearsalAddress = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    accessKey,
  };
  const file = path.resolve(rehearsalFile);
  writeFileSync(file, JSON.stringify(address), { mode: 0o600 });
  return async () => {
    // Who watches sees how it ended. A connection that is not used again is closed, five seconds after its last answer.
    // https://nodejs.org/api/http.html#serverkeepalivetimeout
    watching = new Set(connections);
    if (watching.size > 0) await once(server, 'end seen');
    rmSync(file, { force: true });
    // What is being answered is answered.
    await new Promise((resolve) => server.close(resolve));
  };
}

async function answer(request: IncomingMessage, operated: Operated): Promise<Answer> {
  const asked = await text(request);
  const target = request.headers['x-amz-target'];
  if (typeof target === 'string')
    return { body: JSON.stringify(states(target.split('.').at(-1) ?? '', JSON.parse(asked), operated)) };
  if (isLook(request))
    try {
      return { body: JSON.stringify(await operated.operate(JSON.parse(asked))) };
    } catch (failure) {
      return { body: (failure as Error).message, error: 'Unhandled' };
    }
  return { body: query(new URLSearchParams(asked).get('Action') ?? '', operated) };
}

interface StatesInput {
  readonly executionArn?: string;
  readonly cause?: string;
}

/** Step Functions. Dates are seconds. */
function states(
  operation: string,
  { executionArn = '', cause = '' }: StatesInput,
  operated: Operated,
): unknown {
  const of = (arn: string) => {
    const startedAt = operated.startOf(arn);
    if (startedAt === undefined) throw named('ExecutionDoesNotExist', `Execution Does Not Exist: '${arn}'`);
    const name = arn.split(':').at(-1);
    const status = operated.running().includes(arn) ? 'RUNNING' : 'ABORTED';
    return { executionArn: arn, stateMachineArn, name, status, startDate: startedAt.getTime() / 1_000 };
  };
  switch (operation) {
    case 'ListExecutions':
      return { executions: operated.running().map(of) };
    case 'DescribeExecution':
      return of(executionArn);
    case 'StopExecution':
      operated.stop(executionArn, cause);
      return { stopDate: Date.now() / 1_000 };
    default:
      throw named(
        'UnknownOperationException',
        `a rehearsal has no answer to ${operation}: it begins with npm start`,
      );
  }
}

function query(action: string, { version }: Operated): string {
  switch (action) {
    case 'GetCallerIdentity':
      return xml(
        action,
        `<Arn>arn:aws:iam::${account}:user/${userInfo().username}</Arn><Account>${account}</Account>`,
      );
    case 'DescribeStacks': {
      const outputs = {
        StateMachineArn: stateMachineArn,
        OperateFunctionName: operateFunction,
        Version: version,
      };
      const members = Object.entries(outputs).map(
        ([key, value]) => `<member><OutputKey>${key}</OutputKey><OutputValue>${value}</OutputValue></member>`,
      );
      return xml(action, `<Stacks><member><Outputs>${members.join('')}</Outputs></member></Stacks>`);
    }
    default:
      throw named('InvalidAction', `a rehearsal has no answer to ${action}`);
  }
}

const xml = (action: string, result: string) =>
  `<${action}Response><${action}Result>${result}</${action}Result></${action}Response>`;

const named = (name: string, message: string) => Object.assign(new Error(message), { name });

const refused = (isQuery: boolean, name: string, message: string): Answer => ({
  body: isQuery
    ? `<ErrorResponse><Error><Type>Sender</Type><Code>${name}</Code><Message>${message}</Message></Error></ErrorResponse>`
    : JSON.stringify({ __type: name, message }),
  error: name,
});
