import { afterAll, expect, test, vi } from 'vitest';
import { AwsStandIn } from '../../../../rehearsal/aws/aws.ts';

const aws = await AwsStandIn.start({
  secrets: new Map(),
  cpuPercent: 20,
  alarms: new Map(),
  dashboards: new Set(),
  snapshotAt: new Date(),
  isRunning: async () => false,
});
const topic = 'arn:aws:sns:us-east-1:123456789012:Rollout-Chat';
for (const [name, value] of Object.entries({
  AWS_ENDPOINT_URL: aws.url,
  AWS_REGION: 'us-east-1',
  AWS_ACCESS_KEY_ID: 'test',
  AWS_SECRET_ACCESS_KEY: 'test',
  CHAT_TOPIC_ARN: topic,
  OPERATE_BY_BUTTON: 'Payments-OperateByButton',
  CHAT_CHANNEL: 'C0123ABCD',
  POWERTOOLS_LOG_LEVEL: 'SILENT',
}))
  vi.stubEnv(name, value);
const { handler } = await import('../../../../lambdas/handlers/telling/tell-chat.ts');

afterAll(async () => {
  vi.unstubAllEnvs();
  await aws.stop();
});

/** As SNS calls a function. */
const event = (...messages: [subject: string | null, message: string][]) => ({
  Records: messages.map(([Subject, Message]) => ({ EventSource: 'aws:sns', Sns: { Subject, Message } })),
});

test('what the machines say reaches the chat in its form; alarms, which it gets itself, do not come twice', async () => {
  await handler(
    event(['Encryption rollout: update', '42 %'], ['ALARM', '{"AlarmName":"Rollout-MissingIvs"}']),
  );
  expect(aws.published).toEqual([{ topic, message: expect.stringContaining('"description":"42 %"') }]);
  expect(JSON.parse(aws.published[0]?.message ?? '')).toMatchObject({ version: '1.0', source: 'custom' });
});

test('of a failed check, which pages and is reported, the chat shows the report', async () => {
  aws.published.length = 0;
  const [page, report] = event(['Daily check NO_GO', 'page'], ['Daily check NO_GO', 'report']).Records;
  // As SNS gives a function the attributes of a message.
  const MessageAttributes = { ToldBy: { Type: 'String', Value: 'Updates' } };
  await handler({ Records: [{ ...page, Sns: { ...page?.Sns, MessageAttributes } }] });
  await handler({ Records: [{ ...report, Sns: { ...report?.Sns, MessageAttributes: {} } }] });
  expect(aws.published).toEqual([{ topic, message: expect.stringContaining('"description":"report"') }]);
});

test('a message has the buttons that it was given, and none where there is nothing to press, or the channel may not', async () => {
  aws.published.length = 0;
  const told = (Value: string) => ({
    Records: event([null, 'text']).Records.map((each) => ({
      ...each,
      Sns: { ...each.Sns, MessageAttributes: { Offers: { Type: 'String', Value } } },
    })),
  });
  await handler(
    told(
      '{"deployment":"Payments","run":"6b1d","attempt":2,"hold":"hold-7k2m9q","buttons":["no-go","abort"]}',
    ),
  );
  await handler(told('{"deployment":"Payments","run":"6b1d","attempt":2,"buttons":[]}'));
  await handler(told('{}'));
  vi.stubEnv('OPERATE_BY_BUTTON', undefined);
  await handler(told('{"deployment":"Payments","run":"6b1d","attempt":2,"buttons":["abort"]}'));
  expect(aws.published.map(({ message }) => JSON.parse(message).metadata)).toEqual([
    {
      enableCustomActions: true,
      additionalContext: {
        deployment: 'Payments',
        function: 'Payments-OperateByButton',
        region: 'us-east-1',
        status: 'status/C0123ABCD/6b1d/2/hold-7k2m9q',
        no_go: 'no-go/C0123ABCD/6b1d/2/hold-7k2m9q',
        abort: 'abort/C0123ABCD/6b1d/2/hold-7k2m9q',
      },
    },
    undefined,
    undefined,
    undefined,
  ]);
});

test('a message that could not be passed on is an error, so that SNS tries again', async () => {
  aws.world.disturb = () => {
    throw Object.assign(new Error('no'), { name: 'AuthorizationError' });
  };
  await expect(handler(event([null, 'text']))).rejects.toThrow();
});
