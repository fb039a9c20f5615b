/** After which errors a state tries again, how often, and after how long. */
import { Duration } from 'aws-cdk-lib';
import { JitterType, type RetryProps } from 'aws-cdk-lib/aws-stepfunctions';

/** Up to about two minutes, the time of a failover of the database; jittered, lest retries meet again. */
const patience = {
  interval: Duration.seconds(2),
  maxAttempts: 7,
  backoffRate: 2,
  maxDelay: Duration.seconds(60),
  jitterStrategy: JitterType.FULL,
} satisfies RetryProps;

const passingTrouble: RetryProps = {
  ...patience,
  errors: [
    // Ours: connection lost, deadlock, serialization failure, lock timeout, throttled by AWS.
    'TransientError',
    // Lambda's own trouble: the invocation never reached the handler, or its answer never reached us.
    'Lambda.ServiceException',
    'Lambda.AWSLambdaException',
    'Lambda.SdkClientException',
    'Lambda.ClientExecutionTimeoutException',
    // More invocations than the account may have at once.
    'Lambda.TooManyRequestsException',
  ],
};

/** What a function is that ran out of its time. As AWS says, some are still told of by the second name. */
const timedOut = ['Sandbox.Timedout', 'Lambda.Unknown'];

/** Every handler may be repeated: PostgreSQL knows what is done. Twice, because what is slow twice is not a spike. */
const slowOnce = {
  interval: Duration.seconds(10),
  maxAttempts: 2,
  backoffRate: 2,
  jitterStrategy: JitterType.FULL,
} satisfies RetryProps;

/**
 * A function in a VPC that nobody has called for some weeks has lost its way into it. The call that finds that out fails,
 * and so do those of the next minute or so. Asked at short intervals, since what is woken may be a rollback.
 * https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html
 */
const asleep: RetryProps = {
  errors: [
    'Lambda.ResourceNotReadyException',
    'Lambda.ResourceConflictException',
    'Lambda.ENINotReadyException',
  ],
  interval: Duration.seconds(5),
  maxAttempts: 60,
  backoffRate: 1,
};

/** Of a handler's call. */
export const ofCalls: readonly RetryProps[] = [
  passingTrouble,
  asleep,
  { ...slowOnce, errors: ['States.Timeout', ...timedOut] },
];

/** Of a call whose States.Timeout is an answer; the function's own time-out is trouble. */
export const ofQuestions: readonly RetryProps[] = [passingTrouble, asleep, { ...slowOnce, errors: timedOut }];

/** Of a call that only words depend on, and a rollback waits for it. */
export const ofExplanations: RetryProps = {
  ...passingTrouble,
  interval: Duration.seconds(1),
  maxAttempts: 1,
};

/** Of a child's start: the request was throttled or lost. By its name it starts one execution at most. */
export const ofChildren: RetryProps = {
  ...patience,
  errors: ['StepFunctions.AWSStepFunctionsException', 'StepFunctions.SdkClientException'],
};

/** Of a message that was throttled or lost: better paged twice than not at all. */
export const ofMessages: RetryProps = {
  ...patience,
  errors: [
    'SNS.AmazonSNSException',
    'SNS.SdkClientException',
    // Those that SNS has names for: https://docs.aws.amazon.com/sns/latest/api/API_Publish.html
    'SNS.InternalErrorException',
    'SNS.ThrottledException',
    'SNS.KMSThrottlingException',
    'States.Timeout',
  ],
};
