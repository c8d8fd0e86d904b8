// Prints what speedscope's own importer makes of a file, as JSON: `node speedscope.mjs BUNDLE FILE`.
//
// The importer is only published as a part of the application's bundle. The bundle starts the application, which needs
// a page and fails here; by then the importer is there. Its module is found by the one of its functions that the
// application calls by name.

import fs from 'node:fs'
import path from 'node:path'

const [bundle, file] = process.argv.slice(2)
const application = fs.readFileSync(bundle, 'utf8')
const [, variable] = application.match(/await (\w+)\)\.importProfileGroupFromText\(/)
const declaration = new RegExp(`var ${variable}=Promise\\.resolve\\(\\)\\.then\\([^;]*\\);`)
if (!declaration.test(application)) throw new Error('the importer is not where it was in the bundle')

globalThis.location = { hash: '', search: '', href: '', protocol: 'file:' }
globalThis.addEventListener = () => {}
globalThis.matchMedia = () => ({ matches: false, addEventListener() {}, addListener() {} })
const log = console.log
console.log = () => {}
const exposed = application.replace(declaration, whole => `${whole}globalThis.importer=${variable};`)
try {
  new Function('window', 'document', 'navigator', exposed)(globalThis, {}, {})
} catch (error) {
  if (!globalThis.importer) throw error
}

const importer = await globalThis.importer
const group = await importer.importProfileGroupFromText(path.basename(file), fs.readFileSync(file, 'utf8'))
const profiles = group.profiles.map(profile => {
  const frames = []
  profile.forEachFrame(frame =>
    frames.push({ name: frame.name, file: frame.file ?? null, self: frame.getSelfWeight(), total: frame.getTotalWeight() }),
  )
  const stacks = []
  const open = []
  // Calls in the order of time, as they are drawn.
  profile.forEachCall(
    (node, at) => open.push({ name: node.frame.name, at }),
    (_, at) => {
      const call = open.pop()
      stacks.push({ name: call.name, depth: open.length, from: call.at, to: at })
    },
  )
  return {
    name: profile.getName(),
    unit: profile.getWeightUnit(),
    total: profile.getTotalWeight(),
    frames,
    calls: stacks,
  }
})
log(JSON.stringify({ name: group.name, profiles }))
