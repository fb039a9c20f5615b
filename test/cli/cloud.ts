/** AWS at the other end of the line, and somebody at the keyboard: the world of the commands' tests. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { PassThrough } from 'node:stream';
import { stripVTControlCharacters } from 'node:util';
import { vi } from 'vitest';
import { runCommand } from '../../cli/program.ts';

/** What somebody types once the question is there; without it there is no terminal. */
export interface Terminal {
  readonly question: RegExp;
  readonly keys: string;
}

/**
 * `npm run rollout -- …`, without what the machine knows of AWS.
 * @param environment besides, or instead of, what is set here
 */
export async function rollout(
  args: readonly string[],
  environment: Record<string, string | undefined> = {},
  terminal?: Terminal | readonly Terminal[],
) {
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    vi.spyOn(process[name], 'write').mockImplementation((text) => {
      said[name] += text;
      return true;
    });
  const before = { ...process.env };
  for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name];
  Object.assign(process.env, {
    AWS_CONFIG_FILE: '/nowhere',
    AWS_SHARED_CREDENTIALS_FILE: '/nowhere',
    AWS_EC2_METADATA_DISABLED: 'true',
    AWS_MAX_ATTEMPTS: '1',
    AWS_REGION: 'eu-west-1',
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
    // A question in one line.
    CLI_WIDTH: '1000',
    ...environment,
  });
  const keyboard = Object.assign(new PassThrough(), { isTTY: terminal !== undefined });
  vi.spyOn(process, 'stdin', 'get').mockReturnValue(keyboard as unknown as typeof process.stdin);
  try {
    const ending = runCommand(args);
    for (const { question, keys } of [terminal ?? []].flat()) {
      const asked = () => question.test(stripVTControlCharacters(said.stderr));
      await vi.waitUntil(asked, { timeout: 120_000 });
      keyboard.write(keys);
    }
    return { code: await ending, ...said };
  } finally {
    process.env = before;
    process.exitCode = undefined;
    vi.restoreAllMocks();
  }
}

interface Answer {
  readonly status?: number;
  readonly body: string;
  readonly error?: string;
}

/** AWS as the commands find it: what each action is answered, by its name or the path of a function. */
export class Cloud {
  readonly asked: string[] = [];
  /** What came with each, where it was JSON. */
  readonly sent: unknown[] = [];
  connections = 0;
  answers: Record<string, Answer | ((asked: string) => Promise<Answer>)> = {};
  private readonly server: Server;
  url = '';

  constructor() {
    this.server = createServer(async (request, response) => {
      const body = Buffer.concat(await request.toArray()).toString();
      const target = request.headers['x-amz-target'];
      const action =
        new URLSearchParams(body).get('Action') ??
        (typeof target === 'string' ? target.split('.').at(-1) : undefined) ??
        'Invoke';
      if (body.startsWith('{')) this.sent.push(JSON.parse(body));
      this.asked.push(action === 'Invoke' ? `Invoke ${JSON.parse(body).command}` : action);
      const given = this.answers[action] ?? { status: 500, body: '' };
      const { status = 200, error, body: text } = typeof given === 'function' ? await given(body) : given;
      response
        .writeHead(status, {
          'content-type': text.startsWith('<') ? 'text/xml' : 'application/json',
          ...(error === undefined ? {} : { 'x-amz-function-error': error }),
        })
        .end(text);
    }).on('connection', () => {
      this.connections += 1;
    });
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** A command of the deployed stack. `environment`: instead of that of the stand-in. */
  rollout(
    args: readonly string[],
    environment: Record<string, string | undefined> = {},
    terminal?: Terminal,
  ) {
    return rollout([...args, '--stack', 'Rollout'], { AWS_ENDPOINT_URL: this.url, ...environment }, terminal);
  }

  stop(): void {
    this.server.closeAllConnections();
    this.server.close();
  }
}

export const identity = {
  body: '<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/roe</Arn><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>',
};
export const stackOf = (outputs: Record<string, string>) => ({
  body: `<DescribeStacksResponse><DescribeStacksResult><Stacks><member><StackName>Rollout</StackName><StackStatus>CREATE_COMPLETE</StackStatus><Outputs>${Object.entries(
    outputs,
  )
    .map(
      ([key, value]) => `<member><OutputKey>${key}</OutputKey><OutputValue>${value}</OutputValue></member>`,
    )
    .join('')}</Outputs></member></Stacks></DescribeStacksResult></DescribeStacksResponse>`,
});
export const stack = stackOf({
  StateMachineArn: 'arn:aws:states:eu-west-1:123456789012:stateMachine:Rollout-EncryptionRollout',
  OperateFunctionName: 'Rollout-Operate',
});
export const failure = (code: string, message: string) => ({
  status: 400,
  body: `<ErrorResponse><Error><Type>Sender</Type><Code>${code}</Code><Message>${message}</Message></Error></ErrorResponse>`,
});
