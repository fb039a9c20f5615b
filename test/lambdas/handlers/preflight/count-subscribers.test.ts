import { afterEach, beforeEach, expect, test } from 'vitest';
import { AwsError } from '../../../../rehearsal/aws/aws-world.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
beforeEach(async () => {
  world = await testWorld(0);
});
afterEach(async () => {
  delete world.aws.world.subscriptions;
  world.aws.world.disturb = undefined;
  await world.stop();
});

const topic = 'arn:aws:sns:us-east-1:123456789012:Payments-OnCall';
const functionNamed = (name: string) => `arn:aws:lambda:us-east-1:123456789012:function:${name}`;
const subscription = (SubscriptionArn: string, Protocol: string, Endpoint: string) => ({
  SubscriptionArn,
  Protocol,
  Endpoint,
});
const ofTellChat = subscription(`${topic}:1`, 'lambda', functionNamed('Payments-TellChat'));
const count = () => world.invoke('count-subscribers', {});

test('counts whom a page reaches: neither who has not confirmed nor our own function, and names nobody', async () => {
  world.aws.world.subscriptions = [
    ofTellChat,
    subscription('PendingConfirmation', 'email', 'r.roe@example.com'),
    subscription('Deleted', 'email', 'left@example.com'),
  ];
  expect(await count()).toEqual({ subscribers: 0 });
  world.aws.world.subscriptions = [
    ofTellChat,
    subscription(`${topic}:2`, 'email', 'j.doe@example.com'),
    // Amazon Q in Slack, and a function of the operator's that pages.
    subscription(`${topic}:3`, 'https', 'https://global.sns-api.chatbot.amazonaws.com'),
    subscription(`${topic}:4`, 'lambda', functionNamed('pager')),
  ];
  expect(await count()).toEqual({ subscribers: 3 });
});

test('fails when SNS does not tell: preflight must not take that for nobody', async () => {
  world.aws.world.disturb = () => {
    throw new AwsError('AuthorizationError', 'not authorized to perform: SNS:ListSubscriptionsByTopic');
  };
  await expect(count()).rejects.toMatchObject({ name: 'AuthorizationErrorException' });
});
