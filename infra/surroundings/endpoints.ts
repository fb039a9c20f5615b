import {
  CfnSecurityGroup,
  CfnSecurityGroupIngress,
  CfnVPCEndpoint,
  InterfaceVpcEndpointAwsService,
} from 'aws-cdk-lib/aws-ec2';
import { Construct } from 'constructs';
import type { GivenConfig } from '../config.ts';

/**
 * What the functions call. Their logs and traces leave through Lambda itself, and notifications are sent by Step
 * Functions and CloudWatch, not from the VPC.
 */
export const endpointServices = ['secretsmanager', 'monitoring', 'rds', 'states', 'scheduler'] as const;

/** Interface endpoints with private DNS, for subnets without a way to the internet, open to the functions alone. */
export class Endpoints extends Construct {
  constructor(scope: Construct, id: string, config: GivenConfig) {
    super(scope, id);
    const { stackName, vpcId, subnetIds, securityGroupId } = config;
    const group = new CfnSecurityGroup(this, 'SecurityGroup', {
      vpcId,
      groupDescription: `Endpoints of ${stackName}`,
    });
    new CfnSecurityGroupIngress(this, 'FromFunctions', {
      groupId: group.attrGroupId,
      sourceSecurityGroupId: securityGroupId,
      ipProtocol: 'tcp',
      fromPort: 443,
      toPort: 443,
      description: 'HTTPS from the functions',
    });
    for (const service of [...endpointServices, ...(config.onlyInVpc ? ['sns'] : [])]) {
      new CfnVPCEndpoint(this, service, {
        vpcId,
        subnetIds,
        securityGroupIds: [group.attrGroupId],
        vpcEndpointType: 'Interface',
        // Some begin with `cn.` in China: CDK knows which.
        serviceName: new InterfaceVpcEndpointAwsService(service).name,
        privateDnsEnabled: true,
      });
    }
  }
}
