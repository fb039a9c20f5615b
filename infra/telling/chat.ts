import { CfnOutput, Duration, Stack } from 'aws-cdk-lib';
import {
  CfnCustomAction,
  type CfnSlackChannelConfiguration,
  SlackChannelConfiguration,
} from 'aws-cdk-lib/aws-chatbot';
import { ManagedPolicy, PolicyStatement, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Code, type IFunction, Function as LambdaFunction } from 'aws-cdk-lib/aws-lambda';
import type { ILogGroup } from 'aws-cdk-lib/aws-logs';
import { type ITopic, Topic } from 'aws-cdk-lib/aws-sns';
import { LambdaSubscription } from 'aws-cdk-lib/aws-sns-subscriptions';
import { RegionInfo } from 'aws-cdk-lib/region-info';
import { Construct } from 'constructs';
import type { Button } from '../../lambdas/core/operating/buttons.ts';
import { ConfigurationError } from '../../lambdas/core/plan/configuration-error.ts';
import { variableOf } from '../../lambdas/core/telling/chat.ts';
import type { RolloutConfig } from '../config.ts';
import { runtimeOfFunctions, withBundle } from '../functions/bundles.ts';
import { handlerOf } from '../functions/handler-files.ts';
import type { Names } from '../names.ts';
import { allowNetworkInterfaces, type Surroundings } from '../surroundings/surroundings.ts';
import type { Notifications } from './notifications.ts';

/** What may stand below a message; `status` looks. */
const chatButtons: Readonly<Record<Button | 'status', string>> = {
  status: 'Where is it?',
  go: 'Go',
  'no-go': 'No-go',
  retry: 'Measure again',
  pause: 'Pause',
  resume: 'Resume',
  abort: 'Abort',
};

/** The same for all: each button reads its own word of the message, by the variable that is named like it. */
const command = 'lambda invoke --function-name $function --region $region --payload {"pressed":"$pressed"}';

interface ChatProps {
  readonly names: Names;
  readonly slack: NonNullable<RolloutConfig['slack']>;
  readonly notifications: Notifications;
  /** What the chat follows. */
  readonly topics: readonly ITopic[];
  /** What the buttons call. */
  readonly operateByButton: IFunction;
  readonly logGroup: ILogGroup;
  /** Where TellChat runs; anywhere when not given. */
  readonly network: Surroundings['network'] | undefined;
}

/**
 * A Slack channel that follows the rollout, through Amazon Q Developer in chat applications. It shows the alarms of the
 * topics by itself; TellChat puts everything else into its form, on a topic of its own.
 */
export class Chat extends Construct {
  constructor(
    scope: Construct,
    id: string,
    { names, slack, notifications, topics, operateByButton, logGroup, network }: ChatProps,
  ) {
    super(scope, id);
    const told = notifications.create('Chat', []);
    const role = new Role(this, 'TellChatRole', {
      assumedBy: new ServicePrincipal('lambda.amazonaws.com'),
      description: `${names.of('TellChat')}: reads no secret, and no database`,
    });
    const tellChat = withBundle(
      ['TellChat'],
      undefined,
      (directory) =>
        new LambdaFunction(this, 'TellChat', {
          functionName: names.of('TellChat'),
          description: 'Puts what the encryption rollout says into the form that the chat shows',
          ...runtimeOfFunctions,
          code: Code.fromAsset(directory),
          handler: handlerOf('TellChat'),
          timeout: Duration.seconds(30),
          ...network,
          role,
          logGroup,
          environment: {
            CHAT_TOPIC_ARN: told.topicArn,
            ...(slack.operate
              ? { OPERATE_BY_BUTTON: names.of('OperateByButton'), CHAT_CHANNEL: slack.channelId }
              : {}),
            POWERTOOLS_SERVICE_NAME: 'encryption-rollout',
          },
        }),
    );
    if (network !== undefined) allowNetworkInterfaces(role);
    logGroup.grantWrite(role);
    told.grantPublish(role);
    notifications.grantEncryption(role);
    for (const topic of topics) topic.addSubscription(new LambdaSubscription(tellChat));

    // A channel is configured once in an account, so the stack that does it follows those of the others.
    new CfnOutput(this, 'TopicArns', {
      description: 'For alsoFollow of the stack that configures the Slack channel',
      value: [...topics, told].map(({ topicArn }) => topicArn).join(','),
    }).overrideLogicalId('ChatTopicArns');
    if (slack.configuredElsewhere) return;
    const { partition = 'aws' } = RegionInfo.get(Stack.of(this).region);
    if (partition !== 'aws')
      throw new ConfigurationError(
        `slack: found one in ${Stack.of(this).region}, expected none: Amazon Q Developer in chat applications is not there. Subscribe something else to the topics that the stack outputs`,
      );
    const others = slack.alsoFollow.map((arn, index) => Topic.fromTopicArn(this, `Follows${index}`, arn));
    const channelRole = new Role(this, 'ChannelRole', {
      // Without a condition: this service is not documented to say for whom it comes. It takes the role of an account
      // only from who may pass it there.
      assumedBy: new ServicePrincipal('chatbot.amazonaws.com'),
      description: 'What the chat may look up to show an alarm',
    });
    channelRole.addToPolicy(
      new PolicyStatement({
        // To draw the graph of an alarm. CloudWatch knows no resource here.
        actions: ['cloudwatch:DescribeAlarms', 'cloudwatch:GetMetricData', 'cloudwatch:GetMetricWidgetImage'],
        resources: ['*'],
      }),
    );
    const leave = new PolicyStatement({
      actions: ['lambda:InvokeFunction'],
      resources: [operateByButton.functionArn],
    });
    if (slack.operate) channelRole.addToPolicy(leave);
    const channel = new SlackChannelConfiguration(this, 'Slack', {
      slackChannelConfigurationName: names.of('Slack'),
      slackWorkspaceId: slack.workspaceId,
      slackChannelId: slack.channelId,
      notificationTopics: [...topics, told, ...others],
      role: channelRole,
      // Nobody does more from the channel than this, whatever role they bring along.
      guardrailPolicies: [
        ManagedPolicy.fromAwsManagedPolicyName('CloudWatchReadOnlyAccess'),
        ...(slack.operate ? [new ManagedPolicy(this, 'MayOperate', { statements: [leave] })] : []),
      ],
    });
    if (slack.operate) this.addButtons(names, channel);
  }

  /** Messages have buttons for what they offer. */
  private addButtons(names: Names, channel: SlackChannelConfiguration): void {
    const read = (name: string) => `event.metadata.additionalContext.${name}`;
    const actions = Object.entries(chatButtons).map(
      ([button, buttonText]) =>
        new CfnCustomAction(this, `Button-${button}`, {
          actionName: names.of(button),
          definition: { commandText: command },
          attachments: [
            {
              buttonText,
              notificationType: 'Custom',
              variables: {
                deployment: read('deployment'),
                function: read('function'),
                region: read('region'),
                pressed: read(variableOf(button)),
              },
              criteria: [
                { variableName: 'deployment', operator: 'EQUALS', value: names.dashboard },
                { variableName: 'pressed', operator: 'HAS_VALUE' },
              ],
            },
          ],
        }),
    );
    const configuration = channel.node.defaultChild as CfnSlackChannelConfiguration;
    configuration.customizationResourceArns = actions.map(({ attrCustomActionArn }) => attrCustomActionArn);
  }
}
