import { readFileSync } from 'node:fs';
import { App } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import { AwsSolutionsChecks } from 'cdk-nag';
import { describe, expect, test } from 'vitest';
import { parseConfig } from '../../../infra/config.ts';
import { EncryptionRolloutStack } from '../../../infra/stack.ts';
import { ButtonInput } from '../../../lambdas/core/operating/buttons.ts';
import { contextOf } from '../../../lambdas/core/telling/chat.ts';
import { everything } from '../everything.ts';

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
const environmentOf = (given: Template, name: string) =>
  Object.values(given.findResources('AWS::Lambda::Function', { Properties: { FunctionName: name } }))[0]
    ?.Properties.Environment.Variables;

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

  test('has no buttons unless they are wanted', () => {
    template.resourceCountIs('AWS::Chatbot::CustomAction', 0);
    expect(channel?.Properties).not.toHaveProperty('CustomizationResourceArns');
    expect(environmentOf(template, 'EncryptionRollout-TellChat')).not.toHaveProperty('OPERATE_BY_BUTTON');
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

describe('a channel that may operate', () => {
  const given = Template.fromStack(
    new EncryptionRolloutStack(new App({ analyticsReporting: false }), everything.stackName, {
      config: everything,
    }),
  );
  const [channel] = Object.values(given.findResources('AWS::Chatbot::SlackChannelConfiguration'));
  const actions = given.findResources('AWS::Chatbot::CustomAction');
  const [operateByButton] = Object.keys(
    given.findResources('AWS::Lambda::Function', {
      Properties: { FunctionName: 'Everything-OperateByButton' },
    }),
  );

  test('has a button for each thing that the function does, and one that looks', () => {
    expect(channel?.Properties.CustomizationResourceArns).toEqual(
      Object.keys(actions).map((id) => ({ 'Fn::GetAtt': [id, 'CustomActionArn'] })),
    );
    const buttons = Object.values(actions).map(({ Properties }) => Properties);
    expect(buttons.map(({ ActionName }) => ActionName)).toEqual(
      ['status', 'go', 'no-go', 'retry', 'pause', 'resume', 'abort'].map((each) => `Everything-${each}`),
    );
    const about = { run: '3f2b8a50-6c7e-4b51-9a39-0d7c1f6f2a11', attempt: 2, hold: 'hold-7k2m9q' };
    const { OPERATE_BY_BUTTON, CHAT_CHANNEL } = environmentOf(given, 'Everything-TellChat');
    for (const { ActionName, Definition, Attachments } of buttons) {
      // As AWS takes them. Of a command's length its pages disagree: 100 characters and 5,000.
      expect(ActionName).toMatch(/^[\w-]{1,64}$/);
      expect(Definition.CommandText.length).toBeLessThanOrEqual(100);
      const [{ ButtonText, NotificationType, Variables: read, Criteria }] = Attachments;
      expect(ButtonText.length).toBeLessThanOrEqual(50);
      expect(NotificationType).toBe('Custom');
      expect(Object.keys(read).length).toBeLessThanOrEqual(5);
      // It stands at messages of this stack alone, that offer it.
      expect(Criteria).toEqual([
        { VariableName: 'deployment', Operator: 'EQUALS', Value: 'Everything' },
        { VariableName: 'pressed', Operator: 'HAS_VALUE' },
      ]);
      const button = ActionName.replace('Everything-', '');
      const metadata = {
        additionalContext: contextOf(
          { deployment: 'Everything', ...about, buttons: button === 'status' ? ['pause'] : [button] },
          { function: OPERATE_BY_BUTTON, region: 'eu-west-1', chat: CHAT_CHANNEL },
        ),
      };
      // As the chat does when it is pressed at that message.
      const command = Definition.CommandText.replace(/\$(\w+)/g, (_: string, name: string) =>
        String(
          read[name]
            ?.split('.')
            .reduce((found: object, key: string) => Object(found)[key], { event: { metadata } }),
        ),
      );
      const [, payload = ''] =
        /^lambda invoke --function-name Everything-OperateByButton --region eu-west-1 --payload (.*)$/.exec(
          command,
        ) ?? [];
      expect(ButtonInput.parse(JSON.parse(payload))).toEqual({
        describe: false,
        chat: 'C0123ABCD',
        ...about,
        ...(button === 'status' ? {} : { button }),
      });
    }
  });

  test('may call that function, by its role and by its guardrails, and nothing else', () => {
    const leave = {
      Action: 'lambda:InvokeFunction',
      Effect: 'Allow',
      Resource: { 'Fn::GetAtt': [operateByButton, 'Arn'] },
    };
    const [[id = '', guardrail] = []] = Object.entries(given.findResources('AWS::IAM::ManagedPolicy'));
    expect(guardrail?.Properties.PolicyDocument.Statement).toEqual([leave]);
    expect(channel?.Properties.GuardrailPolicies).toEqual([
      { 'Fn::Join': ['', expect.arrayContaining([':iam::aws:policy/CloudWatchReadOnlyAccess'])] },
      { Ref: id },
    ]);
    const role = channel?.Properties.IamRoleArn['Fn::GetAtt'][0];
    const statements = Object.values(given.findResources('AWS::IAM::Policy'))
      .filter(({ Properties }) => Properties.Roles.some((each: { Ref: string }) => each.Ref === role))
      .flatMap(({ Properties }) => Properties.PolicyDocument.Statement);
    expect(statements).toEqual([expect.objectContaining({ Resource: '*' }), leave]);
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
