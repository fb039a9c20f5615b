import { readFileSync } from 'node:fs';
import { App } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import { AwsSolutionsChecks } from 'cdk-nag';
import { describe, expect, test } from 'vitest';
import { parseConfig } from '../../../infra/config.ts';
import { EncryptionRolloutStack } from '../../../infra/stack.ts';

const config = parseConfig(
  {
    ...JSON.parse(readFileSync('config/example.json', 'utf8')),
    slack: { workspaceId: 'T0123ABCD', channelId: 'C0123ABCD' },
  },
  'test',
);
const app = new App({ analyticsReporting: false });
const template = Template.fromStack(new EncryptionRolloutStack(app, config.stackName, { config }));

const idOf = (type: string, property: string, name: string) =>
  Object.keys(
    template.findResources(type, { Properties: { [property]: `EncryptionRollout-${name}` } }),
  )[0] as string;
const [onCall, tomorrow, notes, updates, chat] = ['OnCall', 'Tomorrow', 'Notes', 'Updates', 'Chat'].map(
  (name) => idOf('AWS::SNS::Topic', 'TopicName', name),
);
const tellChat = idOf('AWS::Lambda::Function', 'FunctionName', 'TellChat');

/** Statements of the policies of a role. */
const allowedTo = (role: string) =>
  Object.values(template.findResources('AWS::IAM::Policy'))
    .filter(({ Properties }) => Properties.Roles.some((each: { Ref: string }) => each.Ref === role))
    .flatMap(({ Properties }) => Properties.PolicyDocument.Statement);

describe('the Slack channel', () => {
  const [channel] = Object.values(template.findResources('AWS::Chatbot::SlackChannelConfiguration'));

  test('follows alarms and updates, and what TellChat has put into its form', () => {
    expect(channel?.Properties).toMatchObject({
      SlackWorkspaceId: 'T0123ABCD',
      SlackChannelId: 'C0123ABCD',
      SnsTopicArns: [onCall, tomorrow, notes, updates, chat].map((Ref) => ({ Ref })),
    });
  });

  test('can do nothing but read', () => {
    expect(JSON.stringify(channel?.Properties.GuardrailPolicies)).toContain(
      ':policy/CloudWatchReadOnlyAccess',
    );
    const actions = allowedTo(channel?.Properties.IamRoleArn['Fn::GetAtt'][0]).flatMap(
      ({ Action }) => Action,
    );
    expect(actions.length).toBeGreaterThan(0);
    for (const action of actions) expect(action).toMatch(/^cloudwatch:(Get|Describe)/);
  });

  test('hears of everything: TellChat is subscribed to all topics, and not to its own', () => {
    const subscribed = Object.values(template.findResources('AWS::SNS::Subscription'))
      .filter(({ Properties }) => Properties.Protocol === 'lambda')
      .map(({ Properties }) => [Properties.TopicArn.Ref, Properties.Endpoint['Fn::GetAtt'][0]]);
    expect(subscribed.sort()).toEqual(
      [onCall, tomorrow, notes, updates].map((topic) => [topic, tellChat]).sort(),
    );
  });
});

describe('TellChat', () => {
  const { Properties } = template.findResources('AWS::Lambda::Function')[tellChat] as {
    Properties: { Role: { 'Fn::GetAtt': [string, string] } };
  };

  test('is outside of the network, and has neither secret nor settings', () => {
    expect(Properties).not.toHaveProperty('VpcConfig');
    expect(Properties).toMatchObject({ Environment: { Variables: { CHAT_TOPIC_ARN: { Ref: chat } } } });
    expect(JSON.stringify(Properties)).not.toMatch(/SECRET|ROLLOUT_SETTINGS/);
  });

  test('may publish to the one topic, with its key, and write its log', () => {
    const allowed = allowedTo(Properties.Role['Fn::GetAtt'][0]);
    const actions = allowed
      .flatMap(({ Action }) => Action)
      .filter((action: string) => !action.startsWith('xray:'));
    expect(new Set(actions)).toEqual(
      new Set([
        'logs:CreateLogStream',
        'logs:PutLogEvents',
        'sns:Publish',
        'kms:Decrypt',
        'kms:GenerateDataKey*',
      ]),
    );
    expect(allowed.find(({ Action }) => Action === 'sns:Publish')?.Resource).toEqual({ Ref: chat });
  });
});

test("cdk-nag's AwsSolutions pack finds nothing", () => {
  expect(new AwsSolutionsChecks().validateScope(app).violations).toEqual([]);
});
