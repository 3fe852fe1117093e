// Checks docs/kubernetes/*.yaml against the schemas of Kubernetes and of the Prometheus Operator in the package
// kubernetes-models.
import { readFileSync } from 'node:fs'
import { parseAllDocuments } from 'yaml'

// Where the schemas of each group and version are.
const groups = {
  v1: 'kubernetes-models/v1',
  'apps/v1': 'kubernetes-models/apps/v1',
  'monitoring.coreos.com/v1': '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1',
}

let failed = 0
const fail = (where, words) => {
  failed++
  console.error(`${where}: ${words}`)
}

for (const path of process.argv.slice(2)) {
  for (const document of parseAllDocuments(readFileSync(path, 'utf8'))) {
    const object = document.toJS()
    const where = `${path}: ${object.kind} ${object.metadata?.name}`
    document.errors.forEach((error) => fail(where, error.message))
    const model = groups[object.apiVersion] && (await import(groups[object.apiVersion]))[object.kind]
    if (!model) {
      fail(where, `no schema is known for ${object.apiVersion}/${object.kind}`)
      continue
    }
    try {
      new model(object).validate()
    } catch (error) {
      fail(where, error.message)
    }
  }
}
process.exit(failed ? 1 : 0)
